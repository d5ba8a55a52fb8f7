//! The git index, as far as the work tree is shown from it (`gitformat-index(5)`, version 2).

use cachewfs_format::{GitPath, ObjectId, PathSequence};

/// One file, symbolic link or submodule of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry<'a> {
    pub(super) path: &'a [u8],
    pub(super) mode: u32,
    pub(super) size: u32,
    pub(super) mtime: u32,
    pub(super) id: &'a [u8],
}

/// What is wrong with an index.
pub(super) type Reason = &'static str;

/// Where the fields of an entry are, in bytes from its start.
const MTIME_AT: usize = 8;
const MODE_AT: usize = 24;
const SIZE_AT: usize = 36;
const ID_AT: usize = 40;
const FLAGS_LEN: usize = 2;
/// Length of the header: signature, version, number of entries.
const HEADER_LEN: usize = 12;

/// Reads the entry that starts at `offset`.
pub(super) fn entry_at(index: &[u8], offset: usize, id_len: usize) -> Option<IndexEntry<'_>> {
    let entry = index.get(offset..)?;
    let path_at = ID_AT + id_len + FLAGS_LEN;
    let path = entry.get(path_at..)?;
    let path_len = path.iter().position(|&byte| byte == 0)?;
    Some(IndexEntry {
        path: &path[..path_len],
        mode: u32_at(entry, MODE_AT)?,
        size: u32_at(entry, SIZE_AT)?,
        mtime: u32_at(entry, MTIME_AT)?,
        id: entry.get(ID_AT..ID_AT + id_len)?,
    })
}

/// Length of an entry with its padding: NULs up to a multiple of eight, one at least.
const fn entry_len(path_len: usize, id_len: usize) -> usize {
    (ID_AT + id_len + FLAGS_LEN + path_len + 8) / 8 * 8
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}

/// The offsets of all entries of an index whose paths are safe, sorted and all different.
pub(super) fn entry_offsets(index: &[u8], id_len: usize) -> Result<Vec<u32>, Reason> {
    if index.get(..4) != Some(b"DIRC") || u32_at(index, 4) != Some(2) {
        return Err("it is no index of version 2");
    }
    let count = u32_at(index, 8)
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(0);
    if count > index.len() / entry_len(1, id_len) {
        return Err("it has fewer entries than it says");
    }
    let mut offsets = Vec::with_capacity(count);
    let mut offset = HEADER_LEN;
    let mut paths = PathSequence::default();
    for _ in 0..count {
        let entry = checked_entry_at(index, offset, (id_len, &mut paths))?;
        offsets.push(u32::try_from(offset).map_err(|_| "it is larger than 4 GiB")?);
        offset += entry_len(entry.path.len(), id_len);
    }
    Ok(offsets)
}

/// The entries of a part of an index, which has no header; checked like those of a whole one.
pub(super) fn entries_of_part(part: &[u8], id_len: usize) -> Result<Vec<IndexEntry<'_>>, Reason> {
    let mut entries = Vec::new();
    let mut offset = 0;
    let mut paths = PathSequence::default();
    while offset < part.len() {
        let entry = checked_entry_at(part, offset, (id_len, &mut paths))?;
        entries.push(entry);
        offset += entry_len(entry.path.len(), id_len);
    }
    Ok(entries)
}

/// Reads an entry whose path is safe, and comes after those before it.
fn checked_entry_at<'a>(
    index: &'a [u8],
    offset: usize,
    (id_len, paths): (usize, &mut PathSequence),
) -> Result<IndexEntry<'a>, Reason> {
    let entry = entry_at(index, offset, id_len).ok_or("it ends within an entry")?;
    let path = GitPath::parse(entry.path).map_err(|_| "a path is malformed")?;
    if path.has_dot_git() {
        return Err("a path has a component '.git'");
    }
    paths
        .push(&path)
        .map_err(|_| "its paths are not those of a tree, sorted")?;
    ObjectId::from_bytes(entry.id).map_err(|_| "an object id is malformed")?;
    Ok(entry)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An index with these paths and modes.
    pub(in crate::view) fn index_of(entries: &[(&str, u32)]) -> Vec<u8> {
        let mut index = b"DIRC\0\0\0\x02".to_vec();
        index.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
        for (path, mode) in entries {
            let mut entry = vec![0; ID_AT + 20 + FLAGS_LEN];
            entry[MODE_AT..MODE_AT + 4].copy_from_slice(&mode.to_be_bytes());
            entry.extend_from_slice(path.as_bytes());
            entry.resize(entry_len(path.len(), 20), 0);
            index.extend(entry);
        }
        index
    }

    #[test]
    fn reads_what_git_writes() {
        let index = index_of(&[("a", 0o100_644), ("b/c", 0o120_000)]);

        let offsets = entry_offsets(&index, 20).unwrap();

        let entry = entry_at(&index, offsets[1] as usize, 20).unwrap();
        assert_eq!((entry.path, entry.mode), (&b"b/c"[..], 0o120_000));
    }

    #[test]
    fn refuses_paths_that_git_would_not_check_out() {
        for bad in [
            &["b", "a"][..],
            &["a", "a"],
            &["../x"],
            &[".git/config"],
            &["a", "a/b"],
            &["/a"],
        ] {
            let entries: Vec<_> = bad.iter().map(|&path| (path, 0o100_644)).collect();
            assert!(entry_offsets(&index_of(&entries), 20).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..4) {
            let mut index = b"DIRC\0\0\0\x02".to_vec();
            index.extend(count.to_be_bytes());
            index.extend(bytes);
            drop(entry_offsets(&index, 20));
            drop(entries_of_part(&index[12..], 20));
        }
    }
}
