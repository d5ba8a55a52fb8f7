//! The git index of an archive (`gitformat-index(5)`, version 2): what a mount accepts, and so what a
//! daemon publishes.

use crate::{Error, GitPath, ObjectId, PathSequence, Result};

/// One file, symbolic link or submodule of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The path, relative to the work tree.
    pub path: &'a [u8],
    /// git's mode: type and permissions.
    pub mode: u32,
    /// The lowest 32 bits of the file's length in bytes.
    pub size: u32,
    /// Modification time in seconds since the epoch.
    pub mtime: u32,
    /// The raw id of the git blob.
    pub id: &'a [u8],
}

/// Where the fields of an entry are, in bytes from its start.
const MTIME_AT: usize = 8;
const MODE_AT: usize = 24;
const SIZE_AT: usize = 36;
const ID_AT: usize = 40;
const FLAGS_LEN: usize = 2;
/// Length of the header: signature, version, number of entries.
const HEADER_LEN: usize = 12;

impl<'a> IndexEntry<'a> {
    /// Reads the entry that starts at `offset`, of an index whose object ids have `id_len` bytes.
    /// Returns `None` if the bytes end within it.
    pub fn at(index: &'a [u8], offset: usize, id_len: usize) -> Option<Self> {
        let entry = index.get(offset..)?;
        let path_at = ID_AT.checked_add(id_len)?.checked_add(FLAGS_LEN)?;
        let path = entry.get(path_at..)?.split(|&byte| byte == 0).next()?;
        // The path ends with a NUL.
        entry.get(path_at.checked_add(path.len())?)?;
        Some(Self {
            path,
            mode: u32_at(entry, MODE_AT)?,
            size: u32_at(entry, SIZE_AT)?,
            mtime: u32_at(entry, MTIME_AT)?,
            id: entry.get(ID_AT..ID_AT.checked_add(id_len)?)?,
        })
    }

    /// Reads the entry at `offset`, whose path has to be safe, and to sort after the others in `paths`.
    fn checked_at(
        index: &'a [u8],
        offset: usize,
        (id_len, paths): (usize, &mut PathSequence),
    ) -> Result<Self> {
        let entry = Self::at(index, offset, id_len).ok_or(malformed("it ends within an entry"))?;
        let path = GitPath::parse(entry.path)?;
        if path.has_dot_git() {
            return Err(malformed("a path has a component '.git'"));
        }
        paths.push(&path)?;
        ObjectId::from_bytes(entry.id)?;
        Ok(entry)
    }
}

/// Length of an entry with its padding: NULs up to a multiple of eight, one at least.
const fn entry_len(path_len: usize, id_len: usize) -> usize {
    let len = ID_AT
        .saturating_add(id_len)
        .saturating_add(FLAGS_LEN)
        .saturating_add(path_len);
    len.saturating_add(8) & !7
}

fn malformed(reason: &'static str) -> Error {
    let section = "index";
    Error::Malformed { section, reason }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}

/// Checks an index, and returns the offsets of its entries. Their paths are safe, sorted and all
/// different.
pub fn index_offsets(index: &[u8], id_len: usize) -> Result<Vec<u32>> {
    if index.get(..4) != Some(b"DIRC") || u32_at(index, 4) != Some(2) {
        return Err(malformed("it has another version than 2"));
    }
    let count = u32_at(index, 8).and_then(|count| usize::try_from(count).ok());
    let count = count.unwrap_or(0);
    let shortest = entry_len(1, id_len);
    if count.saturating_mul(shortest) > index.len() {
        return Err(malformed("it has fewer entries than it says"));
    }
    let mut offsets = Vec::with_capacity(count);
    let mut offset = HEADER_LEN;
    let mut paths = PathSequence::default();
    for _ in 0..count {
        let entry = IndexEntry::checked_at(index, offset, (id_len, &mut paths))?;
        offsets.push(u32::try_from(offset).map_err(|_| malformed("it is larger than 4 GiB"))?);
        offset = offset.saturating_add(entry_len(entry.path.len(), id_len));
    }
    Ok(offsets)
}

/// Checks a part of an index, which has no header, and returns its entries. They are checked like
/// those of a whole index.
pub fn index_part_entries(part: &[u8], id_len: usize) -> Result<Vec<IndexEntry<'_>>> {
    let mut entries = Vec::new();
    let mut offset = 0_usize;
    let mut paths = PathSequence::default();
    while offset < part.len() {
        let entry = IndexEntry::checked_at(part, offset, (id_len, &mut paths))?;
        entries.push(entry);
        offset = offset.saturating_add(entry_len(entry.path.len(), id_len));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An index with these paths and modes.
    fn index_of(entries: &[(&str, u32)]) -> Vec<u8> {
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

        let offsets = index_offsets(&index, 20).unwrap();

        let entry = IndexEntry::at(&index, offsets[1] as usize, 20).unwrap();
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
            assert!(index_offsets(&index_of(&entries), 20).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..4) {
            let mut index = b"DIRC\0\0\0\x02".to_vec();
            index.extend(count.to_be_bytes());
            index.extend(bytes);
            drop(index_offsets(&index, 20));
            drop(index_part_entries(&index[12..], 20));
        }
    }
}
