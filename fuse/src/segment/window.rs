//! How many chunks around a missing one are fetched in one request: the window.
//!
//! A request costs a round trip, an unneeded byte costs bandwidth. The window therefore starts
//! small and grows while the reads show that more is needed:
//!
//! ```text
//! sparse segment   random read 256 KiB │ sequential reads 1, 2, 4, 8, 16, 16, … MiB
//! dense segment    misses 1 to 8: 32 KiB each │ further misses 1, 2, 4, 8, 16, 16, … MiB
//! ```

use std::ops::Range;

use cachewfs_format::Chunk;

use crate::traffic::Purpose;

/// The window of a read that isn't sequential, in stored bytes: two to four chunks. Measured with
/// `git blame` on git's own repository: 52 MiB in 195 requests. A window of 1 MiB fetched 60 MiB
/// in 134 requests.
const MIN_WINDOW: u64 = 256 << 10;
/// The smallest window of a read that continues where the last window ended, in bytes.
const MIN_GROWN_WINDOW: u64 = 1 << 20;
/// The window of each of the first misses of a dense segment, in bytes. It is small because a
/// `git log -1` reads only a few places of the commit-graph.
const DENSE_WINDOW: u64 = 32 << 10;
/// The number of first misses of a dense segment that get [`DENSE_WINDOW`].
const FIRST_MISSES: u32 = 8;
/// At most this many bytes are fetched in one window.
const MAX_WINDOW: u64 = 16 << 20;
/// The window of background fetches, in bytes. It is limited because a reader that needs one of
/// its chunks waits for this request.
const BACKGROUND_WINDOW: u64 = 4 << 20;

/// The share of the cache that one window takes at most. Several readers have windows at the same
/// time, and a chunk that is evicted before it is read was fetched in vain.
pub(super) const SHARE_OF_CACHE: u64 = 16;

/// The highest compression ratio that is believed when the size of a window is counted. It limits
/// how much one window decompresses to: a few bytes of zstd can be gigabytes.
pub(super) const MAX_RATIO: u64 = 16;

/// Returns how many bytes of a window a chunk takes: its stored length, or more if it compresses
/// better than [`MAX_RATIO`].
pub(super) fn weight(chunk: &Chunk) -> u64 {
    u64::from(chunk.stored_len).max(u64::from(chunk.content_len) / MAX_RATIO)
}

/// How much of a segment readers need in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Density {
    /// All of it, in random order: indexes, the commit-graph, the tip pack.
    Dense,
    /// Some parts of it: all other segments.
    Sparse,
}

/// The recent misses of a segment, from which the next window is sized.
#[derive(Debug, Default)]
pub(super) struct ReadHistory {
    /// The number of reads that missed.
    misses: u32,
    /// The chunk after the last window. A miss of this chunk counts as a sequential read.
    next: Option<usize>,
    /// The size of the last window in bytes, or 0 before the first.
    bytes: u64,
}

impl ReadHistory {
    /// Returns how many bytes to fetch for a read that misses `chunk`.
    ///
    /// In a sparse segment, a sequential read doubles the window, and any other read resets it.
    /// In a dense segment, each miss after the first [`FIRST_MISSES`] doubles the window, wherever
    /// it is: readers jump around, but need the whole segment in the end.
    pub(super) fn next_window_len(
        &mut self,
        chunk: usize,
        density: Density,
        purpose: Purpose,
    ) -> u64 {
        // A background fetch is no miss of a reader, and must not widen the readers' windows.
        if purpose == Purpose::Background {
            return BACKGROUND_WINDOW;
        }
        self.misses = self.misses.saturating_add(1);
        self.bytes = match density {
            Density::Dense if self.misses <= FIRST_MISSES => DENSE_WINDOW,
            Density::Sparse if self.next != Some(chunk) => MIN_WINDOW,
            Density::Dense | Density::Sparse => {
                (self.bytes * 2).clamp(MIN_GROWN_WINDOW, MAX_WINDOW)
            }
        };
        self.bytes
    }

    /// Notes the window that is being fetched.
    pub(super) fn note_window(&mut self, window: &Range<usize>) {
        self.next = Some(window.end);
    }

    /// Notes that a request for a window failed: the next window is as small as after a seek.
    pub(super) fn note_failure(&mut self) {
        // A read that failed is often repeated at once, which is no sign that readers need more.
        // Over a bad line, a wide window delays the chunk that a reader waits for.
        self.misses = self.misses.saturating_sub(1);
        self.next = None;
        self.bytes = 0;
    }
}

/// Returns a window of missing chunks that contains `chunk`. It has `wanted` bytes, exceeded by
/// less than a chunk, or fewer if a neighbour is not missing.
///
/// The window grows forward first. In a dense segment it then grows backward, until it has
/// `wanted` bytes. `len` returns the [`weight`] of a chunk, or `None` beyond the last chunk.
pub(super) fn window_around(
    chunk: usize,
    wanted: u64,
    density: Density,
    len: impl Fn(usize) -> Option<u64>,
    is_missing: impl Fn(usize) -> bool,
) -> Range<usize> {
    let mut taken = len(chunk).unwrap_or(0);
    let mut end = chunk + 1;
    while taken < wanted
        && let Some(bytes) = len(end)
        && is_missing(end)
    {
        taken += bytes;
        end += 1;
    }
    let mut start = chunk;
    while density == Density::Dense
        && taken < wanted
        && start > 0
        && let Some(bytes) = len(start - 1)
        && is_missing(start - 1)
    {
        taken += bytes;
        start -= 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 256 << 10;

    fn len(chunk: usize) -> Option<u64> {
        (chunk < 100).then_some(CHUNK)
    }

    #[test]
    fn sequential_reads_of_a_sparse_segment_widen_and_a_seek_narrows() {
        let mut history = ReadHistory::default();
        let mut sizes = Vec::new();
        for chunk in [0, 1, 5, 13, 50] {
            let wanted = history.next_window_len(chunk, Density::Sparse, Purpose::Demand);
            let window = window_around(chunk, wanted, Density::Sparse, len, |_| true);
            history.note_window(&window);
            sizes.push(window.len());
        }

        assert_eq!(sizes, [1, 4, 8, 16, 1]);
    }

    #[test]
    fn later_misses_of_a_dense_segment_double_its_window() {
        let mut history = ReadHistory::default();

        let sizes: Vec<u64> = (0..10)
            .map(|miss| {
                history.next_window_len(miss * 7 % 100, Density::Dense, Purpose::Demand) >> 10
            })
            .collect();

        assert_eq!(sizes[..8], [32; 8]);
        assert_eq!(sizes[8..], [1024, 2048]);
    }

    #[test]
    fn windows_do_not_widen_while_requests_fail() {
        for (density, expected_kib) in [(Density::Sparse, 256), (Density::Dense, 32)] {
            let mut history = ReadHistory::default();
            for _ in 0..20 {
                let wanted = history.next_window_len(0, density, Purpose::Demand);
                history.note_window(&window_around(0, wanted, density, len, |_| true));
                assert_eq!(wanted >> 10, expected_kib, "{density:?}");

                history.note_failure();
            }
        }
    }

    #[test]
    fn a_window_stops_at_a_chunk_that_is_cached() {
        assert_eq!(
            window_around(3, 16 << 20, Density::Sparse, len, |at| at != 5),
            3..5
        );
        assert_eq!(
            window_around(99, 16 << 20, Density::Sparse, len, |_| true),
            99..100
        );
    }

    #[test]
    fn the_window_of_a_dense_segment_reaches_back() {
        assert_eq!(
            window_around(98, CHUNK * 6, Density::Dense, len, |_| true),
            94..100
        );
        assert_eq!(
            window_around(2, CHUNK * 3, Density::Dense, len, |at| at == 2),
            2..3
        );
    }
}
