//! How much to fetch around a chunk that is missing.

use std::ops::Range;

use crate::traffic::Purpose;

/// What a first read of a pack fetches at least, in bytes: at 200 Mbit/s and 20 ms, twice what a
/// round trip costs.
const MIN_PACK_WINDOW: u64 = 1 << 20;
/// What a first read of an index fetches, in bytes: a lookup touches few places of it.
const MIN_INDEX_WINDOW: u64 = 128 << 10;
/// What is fetched at once at most, in bytes.
const MAX_WINDOW: u64 = 16 << 20;
/// What hydration fetches at once, in bytes: little, so that a reader need not wait behind it.
const BACKGROUND_WINDOW: u64 = 4 << 20;

/// The recent past of a segment's reads.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The chunk after the last window: a read of it is sequential.
    next: Option<usize>,
    /// The size of the last window, in bytes; 0 before the first.
    bytes: u64,
}

impl Window {
    /// How many bytes to fetch for a read that misses `chunk`.
    ///
    /// A sequential read of a pack doubles the window, any other starts anew. An index is read at
    /// random, and wholly sooner or later: each miss doubles its window.
    pub(super) fn plan(&mut self, chunk: usize, is_index: bool, purpose: Purpose) -> u64 {
        if purpose == Purpose::Background {
            return BACKGROUND_WINDOW;
        }
        let min = if is_index {
            MIN_INDEX_WINDOW
        } else {
            MIN_PACK_WINDOW
        };
        let grows = is_index || self.next == Some(chunk);
        self.bytes = if grows {
            (self.bytes * 2).clamp(min, MAX_WINDOW)
        } else {
            min
        };
        self.bytes
    }

    /// Notes the chunks that are fetched.
    pub(super) fn taken(&mut self, window: &Range<usize>) {
        self.next = Some(window.end);
    }
}

/// Cuts a window of missing chunks around `chunk`, of `wanted` stored bytes or up to a chunk more:
/// what follows, and for an index, with what is left, what comes before.
///
/// `len` gives the stored length of a chunk, or `None` beyond the end.
pub(super) fn cut(
    chunk: usize,
    wanted: u64,
    is_index: bool,
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
    while is_index
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
    fn sequential_reads_of_a_pack_widen_and_a_seek_narrows() {
        let mut window = Window::default();
        let mut sizes = Vec::new();
        for chunk in [0, 4, 12, 50] {
            let wanted = window.plan(chunk, false, Purpose::Demand);
            let cut = cut(chunk, wanted, false, len, |_| true);
            window.taken(&cut);
            sizes.push(cut.len());
        }

        assert_eq!(sizes, [4, 8, 16, 4]);
    }

    #[test]
    fn every_miss_of_an_index_doubles_its_window() {
        let mut window = Window::default();

        let sizes: Vec<u64> = [7, 50, 3]
            .iter()
            .map(|&chunk| window.plan(chunk, true, Purpose::Demand))
            .collect();

        assert_eq!(sizes, [128 << 10, 256 << 10, 512 << 10]);
    }

    #[test]
    fn a_window_stops_at_what_is_there_already() {
        assert_eq!(cut(3, 16 << 20, false, len, |at| at != 5), 3..5);
        assert_eq!(cut(99, 16 << 20, false, len, |_| true), 99..100);
    }

    #[test]
    fn the_window_of_an_index_reaches_back() {
        assert_eq!(cut(98, CHUNK * 6, true, len, |_| true), 94..100);
        assert_eq!(cut(2, CHUNK * 3, true, len, |at| at == 2), 2..3);
    }
}
