//! The first look itself: which files it reads, and where.

use std::sync::Arc;

use cachewfs_format::{ObjectId, PackKind, Role};
use futures_util::future::{join, join_all};

use super::around::fetch_around;
use super::{commit_graph, pack_index};
use crate::segment::Segment;
use crate::traffic::Purpose;

/// At most this many files of a role, all at the same time. An archive may list any number of
/// files.
const MAX_FILES: usize = 64;

/// Fetches the bytes of the object files that `git log -1` reads. `head` is the commit of HEAD.
pub(crate) async fn fetch(head: ObjectId, segments: &[Arc<Segment>]) {
    let oid = head.as_bytes();
    let graph = commit_graph::prefetch(of_role(segments, Role::CommitGraph), oid);
    let packs = hot_packs(segments).map(|(pack, index)| prefetch_from_pack(pack, index, oid));
    join(graph, join_all(packs)).await;
}

/// Returns the packs of which one has HEAD's commit, each with its index.
pub(super) fn hot_packs(
    segments: &[Arc<Segment>],
) -> impl Iterator<Item = (&Arc<Segment>, Option<&Arc<Segment>>)> {
    let hot = [PackKind::Tip, PackKind::Increment, PackKind::Commits].map(Role::Pack);
    let packs = hot.into_iter().flat_map(|role| of_role(segments, role));
    packs.map(|pack| {
        let path = pack.record().file.as_ref().map(|file| file.path.as_bytes());
        let is_index = move |segment: &&Arc<Segment>| {
            let name = segment.record().file.as_ref();
            name.and_then(|file| file.path.as_bytes().strip_suffix(b"idx"))
                .is_some_and(|base| path.and_then(|path| path.strip_suffix(b"pack")) == Some(base))
        };
        (pack, of_role(segments, Role::PackIndex).find(is_index))
    })
}

fn of_role(segments: &[Arc<Segment>], role: Role) -> impl Iterator<Item = &Arc<Segment>> {
    let segments = segments.iter();
    segments
        .filter(move |segment| segment.record().role == role)
        .take(MAX_FILES)
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
