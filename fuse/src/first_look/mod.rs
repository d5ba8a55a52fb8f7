//! Fetching what git looks at first in a repository, before it does.
//!
//! To show the commit of HEAD, git goes from position to position: commit-graph, indexes, packs. Each
//! position is named by the one before it, so that on a cold mount it waits for twenty requests, one
//! after the other. The commit's id is in the TOC; with it, most positions can be worked out at once.
//! All this is a guess: what it gets wrong, or can't read, git fetches when it gets there.

mod commit_graph;
mod pack_index;
mod sorted_ids;

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{ObjectId, Role};
use futures_util::future::{join, join_all};

use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// How much the kernel reads on either side of a fault in a mapped file, in bytes: half of
/// [`READ_AHEAD`](crate::adapter::READ_AHEAD).
const FAULT_AROUND: u64 = crate::adapter::READ_AHEAD as u64 / 2;
/// At most so many files of a kind are looked at, all at the same time. An archive may list any number.
const MAX_FILES: usize = 64;

/// Fetches what `git log -1` reads of the objects; `head` is the commit of HEAD.
pub(crate) async fn fetch(head: ObjectId, segments: &[Arc<Segment>]) {
    let of_role = |role: Role| {
        let segments = segments.iter();
        segments
            .filter(move |segment| segment.record().role == role)
            .take(MAX_FILES)
    };
    let oid = head.as_bytes();
    let graph = commit_graph::prefetch(of_role(Role::CommitGraph), oid);
    let hot = [Role::PackTip, Role::PackIncrement, Role::PackCommits];
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

/// Fetches what tells whether a pack has an object, and the object.
async fn prefetch_from_pack(pack: &Arc<Segment>, index: Option<&Arc<Segment>>, oid: &[u8]) {
    let Some(index) = index else { return };
    let find = pack_index::find(index, oid);
    let (found, _) = join(find, pack.table(Purpose::Background)).await;
    let Ok(Some(offset)) = found else { return };
    // git compares the ends of the two, and the header with what it knows.
    let end = |segment: &Segment| segment.len().saturating_sub(oid.len() as u64)..segment.len();
    join_all([
        fetch_around(pack, 0..12),
        fetch_around(pack, end(pack)),
        fetch_around(pack, offset..offset),
        fetch_around(index, end(index)),
    ])
    .await;
}

/// Fetches the bytes that the kernel reads for a fault in `range`.
async fn fetch_around(segment: &Arc<Segment>, range: Range<u64>) {
    let end = range.end.saturating_add(FAULT_AROUND).min(segment.len());
    let start = range.start.saturating_sub(FAULT_AROUND).min(end);
    segment.fetch_exactly(start..end).await.ok();
}

/// Reads `range`, and fetches what the kernel would read with it.
async fn read(segment: &Arc<Segment>, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    fetch_around(segment, range.clone()).await;
    segment.read(range, Purpose::Background).await
}

/// The number in the 4 bytes at `at`, in network byte order.
fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from(u32::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests;
