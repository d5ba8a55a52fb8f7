//! Fetches the bytes that git reads first in a repository, before git asks for them.
//!
//! To show the commit of HEAD, git reads the commit-graph, then pack indexes, then packs. Each read
//! depends on the one before it. So on a cold mount, git waits for about twenty requests, one after
//! the other. The TOC has the commit's id. With it, most of the offsets can be worked out at once:
//!
//! ```text
//! git:        graph ─► fan-out ─► ids ─► commit ─► index ─► ids ─► offset ─► pack
//! first_look: ├─ commit-graph: fan-out, then ids, then commit and parents
//!             └─ each pack:    fan-out and a guess, then ids, then the object    (in parallel)
//! ```
//!
//! All of this is a guess. If it is wrong, or can't be read, git fetches the right bytes when it
//! reads them.

mod commit_graph;
mod pack_index;
mod sorted_ids;

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{ObjectId, PackKind, Role};
use futures_util::future::{join, join_all};

use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// Bytes that the kernel reads on either side of a page fault in a mapped file: half of
/// [`READ_AHEAD`](crate::adapter::READ_AHEAD).
const FAULT_AROUND: u64 = crate::adapter::READ_AHEAD as u64 / 2;
/// At most this many files of a role, all at the same time. An archive may list any number of
/// files.
const MAX_FILES: usize = 64;

/// Fetches the bytes of the object files that `git log -1` reads. `head` is the commit of HEAD.
pub(crate) async fn fetch(head: ObjectId, segments: &[Arc<Segment>]) {
    let of_role = |role: Role| {
        let segments = segments.iter();
        segments
            .filter(move |segment| segment.record().role == role)
            .take(MAX_FILES)
    };
    let oid = head.as_bytes();
    let graph = commit_graph::prefetch(of_role(Role::CommitGraph), oid);
    // HEAD's commit is in one of the packs of these roles.
    let hot = [PackKind::Tip, PackKind::Increment, PackKind::Commits].map(Role::Pack);
    let packs = hot.into_iter().flat_map(of_role).map(|pack| {
        let path = pack.record().file.as_ref().map(|file| file.path.as_bytes());
        let is_index = move |segment: &&Arc<Segment>| {
            let name = segment.record().file.as_ref();
            name.and_then(|file| file.path.as_bytes().strip_suffix(b"idx"))
                .is_some_and(|base| path.and_then(|path| path.strip_suffix(b"pack")) == Some(base))
        };
        prefetch_from_pack(pack, of_role(Role::PackIndex).find(is_index), oid)
    });
    join(graph, join_all(packs)).await;
}

/// Fetches the parts of `index` that show whether `pack` has an object, and then the object.
async fn prefetch_from_pack(pack: &Arc<Segment>, index: Option<&Arc<Segment>>, oid: &[u8]) {
    let Some(index) = index else { return };
    let find = pack_index::find(index, oid);
    let (found, _) = join(find, pack.table(Purpose::Background)).await;
    let Ok(Some(offset)) = found else { return };
    // When git opens a pack, it checks the header, and compares the checksum at the end of the pack
    // with its copy in the index.
    let end = |segment: &Segment| segment.len().saturating_sub(oid.len() as u64)..segment.len();
    join_all([
        fetch_around(pack, 0..12),
        fetch_around(pack, end(pack)),
        fetch_around(pack, offset..offset),
        fetch_around(index, end(index)),
    ])
    .await;
}

/// Fetches the bytes that the kernel reads for a page fault in `range`.
async fn fetch_around(segment: &Arc<Segment>, range: Range<u64>) {
    let end = range.end.saturating_add(FAULT_AROUND).min(segment.len());
    let start = range.start.saturating_sub(FAULT_AROUND).min(end);
    segment.fetch_exactly(start..end).await.ok();
}

/// Reads `range`, and also fetches the bytes around it that the kernel would read.
async fn read(segment: &Arc<Segment>, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    fetch_around(segment, range.clone()).await;
    segment.read(range, Purpose::Background).await
}

/// Returns the number in the 4 bytes at `at`, in network byte order, or `None` beyond the end.
fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from(u32::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests;
