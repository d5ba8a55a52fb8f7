//! Fetches the bytes of some files of HEAD, for readers of the work tree or for a checkout by git.
//!
//! ```text
//! work tree   the chunks of the runs that have the files' bytes
//! checkout    the chunks of the hot packs that have the files' blobs, as the packs' indexes say
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{PackKind, Role};
use serde::{Deserialize, Serialize};

use crate::segment::{ReadError, Segment, fetch_whole};
use crate::traffic::Purpose;
use crate::view::{Generation, LoadError, WorkTree, WorkTreeFile, WorkTreeNode};

/// Bytes before the ids in an `.idx` file of version 2: the header and the fan-out table.
const IDS_AT: usize = 8 + 256 * 4;
/// At most this many bytes of an index are read. A pack of HEAD's objects has far less.
const MAX_INDEX_LEN: u64 = 1 << 30;

/// The reader of files that are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathReader {
    /// A program that reads the mount's work tree below the paths.
    WorkTree,
    /// git, which checks a clone out of the packs. The paths are directories in cone mode: the
    /// files directly in the directories above them count, too.
    Checkout,
}

/// Fetches what `reader` reads of the files at and below `paths`.
pub(crate) async fn fetch_paths(
    generation: &Generation,
    paths: &[String],
    reader: PathReader,
) -> Result<(), LoadError> {
    let work_tree = generation.work_tree(Purpose::Background).await?;
    match reader {
        PathReader::WorkTree => {
            let files = paths.iter().flat_map(|path| files_at(&work_tree, path));
            fetch_files(&files.collect::<Vec<_>>()).await?;
        }
        PathReader::Checkout => {
            let files = files_in_cones(&work_tree, paths);
            let blobs = files.iter().map(|file| file.blob.clone()).collect();
            fetch_blobs(generation, &blobs).await?;
        }
    }
    Ok(())
}

/// Returns the file at `path`, or the files below it.
fn files_at(work_tree: &WorkTree, path: &str) -> Vec<WorkTreeFile> {
    let path = path.trim_matches('/');
    if path.is_empty() || path == "." {
        return work_tree.files_below(b"");
    }
    match work_tree.get(path.as_bytes()) {
        Some(WorkTreeNode::File(file)) => vec![file],
        Some(WorkTreeNode::Directory) => work_tree.files_below(format!("{path}/").as_bytes()),
        None => Vec::new(),
    }
}

/// Returns the files that git checks out for the directories `paths` in cone mode: all below them,
/// and those directly in the directories above them.
fn files_in_cones(work_tree: &WorkTree, paths: &[String]) -> Vec<WorkTreeFile> {
    let mut above = HashSet::from([""]);
    let mut files = Vec::new();
    for path in paths.iter().map(|path| path.trim_matches('/')) {
        files.extend(files_at(work_tree, path));
        let slashes = path.match_indices('/');
        above.extend(slashes.filter_map(|(at, _)| path.get(..at)));
    }
    for directory in above {
        let children = work_tree.children(directory.as_bytes());
        files.extend(children.into_iter().filter_map(|(_, node)| match node {
            WorkTreeNode::File(file) => Some(file),
            WorkTreeNode::Directory => None,
        }));
    }
    files
}

/// Fetches the bytes of files of the work tree.
async fn fetch_files(files: &[WorkTreeFile]) -> Result<(), ReadError> {
    // Small runs are fetched as a whole: neighbours share a request.
    let mut small: Vec<Arc<Segment>> = Vec::new();
    let mut seen = HashSet::new();
    for file in files {
        let members = &file.run.members;
        if members.is_fetched_whole() && seen.insert(members.record().id) {
            small.push(Arc::clone(members));
        }
    }
    fetch_whole(&small, Purpose::Background).await?;
    for file in files {
        file.fetch().await?;
    }
    Ok(())
}

/// Fetches the chunks of the hot packs that have `blobs`. A blob that is in none of them, or whose
/// delta has its base elsewhere, is fetched when git reads it.
async fn fetch_blobs(generation: &Generation, blobs: &HashSet<Box<[u8]>>) -> Result<(), ReadError> {
    let base_of = |segment: &Segment, suffix: &[u8]| {
        let path = segment.record().file.as_ref()?.path.as_bytes();
        Some(path.strip_suffix(suffix)?.to_vec())
    };
    let indexes = generation
        .segments
        .iter()
        .filter(|segment| segment.record().role == Role::PackIndex);
    let indexes: HashMap<_, _> = indexes
        .filter_map(|segment| Some((base_of(segment, b"idx")?, segment)))
        .collect();
    for pack in &generation.segments {
        let kind = match pack.record().role {
            Role::Pack(kind) if kind.is_hot() || kind == PackKind::Recent => kind,
            _ => continue,
        };
        let index = base_of(pack, b"pack").and_then(|base| indexes.get(&base));
        let Some(index) = index.filter(|index| index.len() <= MAX_INDEX_LEN) else {
            continue;
        };
        let id_len = generation.snapshot.commit().as_bytes().len();
        let bytes = index.read(0..index.len(), Purpose::Background).await?;
        let mut ranges = ranges_of(&bytes, id_len, (blobs, pack.len()));
        if !ranges.is_empty() && kind.is_read_whole() {
            // git compares the end of a pack with its index when it opens it.
            ranges.push(0..12);
            ranges.push(pack.len().saturating_sub(id_len as u64)..pack.len());
        }
        for range in ranges {
            pack.fetch_exactly(range).await?;
        }
    }
    Ok(())
}

/// Returns where a pack of `len` bytes has `blobs`, as neighbouring ranges. `index` is its `.idx`
/// (`gitformat-pack(5)`).
fn ranges_of(
    index: &[u8],
    id_len: usize,
    (blobs, len): (&HashSet<Box<[u8]>>, u64),
) -> Vec<Range<u64>> {
    let number = |at: usize| {
        let bytes = index.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let Some(count) = number(IDS_AT - 4).and_then(|count| usize::try_from(count).ok()) else {
        return Vec::new();
    };
    let Some(ids) = index
        .get(IDS_AT..)
        .and_then(|ids| ids.get(..count.checked_mul(id_len)?))
    else {
        return Vec::new();
    };
    let offsets_at = IDS_AT + ids.len() + count * 4;
    // A number from 2^31 on is an index into the offsets of 8 bytes, which packs this long need.
    let offset_of = |position: usize| {
        let offset = number(offsets_at + position * 4)?;
        if offset < 1 << 31 {
            return Some(u64::from(offset));
        }
        let long_at = offsets_at + count * 4 + usize::try_from(offset & 0x7FFF_FFFF).ok()? * 8;
        let bytes = index.get(long_at..)?.first_chunk()?;
        Some(u64::from_be_bytes(*bytes))
    };
    let mut offsets: Vec<(u64, bool)> = ids
        .chunks_exact(id_len.max(1))
        .enumerate()
        .filter_map(|(position, id)| Some((offset_of(position)?, blobs.contains(id))))
        .collect();
    offsets.sort_unstable();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, &(start, is_wanted)) in offsets.iter().enumerate() {
        if !is_wanted {
            continue;
        }
        // An object ends where the next one begins. Before the end of the pack is its digest.
        let next = offsets.get(number + 1).map(|&(offset, _)| offset);
        let end = next.unwrap_or_else(|| len.saturating_sub(id_len as u64));
        match ranges.last_mut() {
            Some(range) if range.end == start => range.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an index of objects with ids of one byte, repeated, at the given offsets.
    fn index(objects: &[(u8, u32)], long: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; IDS_AT - 4];
        bytes.extend(u32::try_from(objects.len()).unwrap().to_be_bytes());
        bytes.extend(objects.iter().flat_map(|&(id, _)| [id; 20]));
        bytes.extend(objects.iter().flat_map(|_| [0; 4]));
        bytes.extend(objects.iter().flat_map(|&(_, offset)| offset.to_be_bytes()));
        bytes.extend(long.iter().flat_map(|offset| offset.to_be_bytes()));
        bytes.extend([0; 40]);
        bytes
    }

    #[test]
    fn an_object_reaches_to_the_next_one_and_neighbours_are_one_range() {
        let objects = [(1, 300), (2, 12), (3, 100), (4, 200), (5, 1 << 31)];
        let index = index(&objects, &[5000]);
        let ranges = |ids: &[u8]| {
            let blobs = ids.iter().map(|&id| [id; 20].into()).collect();
            ranges_of(&index, 20, (&blobs, 6020))
        };

        assert_eq!(ranges(&[2]), vec![12..100]);
        assert_eq!(ranges(&[4, 3]), vec![100..300]);
        assert_eq!(ranges(&[1, 2]), [12..100, 300..5000]);
        assert_eq!(ranges(&[5, 9]), vec![5000..6000]);
        assert!(ranges(&[9]).is_empty());
        let damaged = &index[..index.len() / 2];
        let blobs = HashSet::from([[1; 20].into()]);
        assert!(ranges_of(damaged, 20, (&blobs, 100)).is_empty());
        assert!(ranges_of(&[], 20, (&blobs, 100)).is_empty());
    }
}
