//! Reads and checks the entries of a git index.

use super::malformed;
use crate::{GitPath, ObjectId, PathSequence, Result};

/// One file, symbolic link or submodule of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The path, relative to the work tree.
    pub path: &'a [u8],
    /// The git mode: type and permissions.
    pub mode: u32,
    /// The lowest 32 bits of the file's length in bytes.
    pub size: u32,
    /// The modification time in seconds since the epoch.
    pub mtime: u32,
    /// The raw id of the git blob.
    pub id: &'a [u8],
}

// The offsets of the fields of an entry, in bytes.
const MTIME_AT: usize = 8;
const MODE_AT: usize = 24;
const SIZE_AT: usize = 36;
const ID_AT: usize = 40;
const FLAGS_LEN: usize = 2;
/// The modes that git writes: file, executable file, symbolic link, submodule.
const MODES: [u32; 4] = [0o100_644, 0o100_755, 0o120_000, 0o160_000];
/// The length that the flags have for a path of at least this many bytes. The flags of a shorter
/// path have its length.
const MAX_FLAGS_LEN: usize = 0xFFF;

impl<'a> IndexEntry<'a> {
    /// Reads the entry at `offset` of an index whose object ids have `id_len` bytes. Returns `None`
    /// if the bytes end within the entry.
    pub(super) fn at(index: &'a [u8], offset: usize, id_len: usize) -> Option<Self> {
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

    /// Reads the entry at `offset`, and refuses it if git wouldn't write it.
    ///
    /// Its path must be safe, and must sort after the paths in `paths`, to which it is added.
    pub(super) fn checked_at(
        index: &'a [u8],
        offset: usize,
        (id_len, paths): (usize, &mut PathSequence),
    ) -> Result<Self> {
        let ends_within = || malformed("it is truncated within an entry");
        let entry = Self::at(index, offset, id_len).ok_or_else(ends_within)?;
        let end = offset.saturating_add(entry.len());
        let bytes = index.get(offset..end).ok_or_else(ends_within)?;
        let (_, after_id) = bytes
            .split_at_checked(ID_AT.saturating_add(id_len))
            .ok_or_else(ends_within)?;
        let (flags, after_flags) = after_id.split_first_chunk().ok_or_else(ends_within)?;
        // The bits above the length are stage, assume-valid and extended flags. git writes zeros
        // there for a checked-out file. An entry with extended flags has two bytes more before its
        // path.
        if usize::from(u16::from_be_bytes(*flags)) != entry.path.len().min(MAX_FLAGS_LEN) {
            return Err(malformed(
                "the flags of an entry have a length or bits that git doesn't write",
            ));
        }
        let padding = after_flags.get(entry.path.len()..).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            return Err(malformed("the padding of an entry is not zero"));
        }
        if !MODES.contains(&entry.mode) {
            return Err(malformed("an entry has a mode that git doesn't write"));
        }
        if entry.id.iter().all(|&byte| byte == 0) {
            return Err(malformed("an entry has the null id as its object"));
        }
        ObjectId::from_bytes(entry.id)?;
        let path = GitPath::parse(entry.path)?;
        path.check_out_as(entry.mode)?;
        paths.push(&path)?;
        Ok(entry)
    }

    /// Returns the length of the entry with its padding in bytes.
    pub(super) fn len(&self) -> usize {
        // At least one NUL follows the path, and so many that the length is a multiple of eight.
        let len = ID_AT
            .saturating_add(self.id.len())
            .saturating_add(FLAGS_LEN)
            .saturating_add(self.path.len());
        len.saturating_add(8) & !7
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}

/// Checks the entries of a part of an index, and returns them. Their paths are safe, sorted and all
/// different.
///
/// A part has no header. Object ids have `id_len` bytes.
pub fn index_part_entries(part: &[u8], id_len: usize) -> Result<Vec<IndexEntry<'_>>> {
    let mut entries = Vec::new();
    let mut offset = 0_usize;
    let mut paths = PathSequence::default();
    while offset < part.len() {
        let entry = IndexEntry::checked_at(part, offset, (id_len, &mut paths))?;
        entries.push(entry);
        offset = offset.saturating_add(entry.len());
    }
    Ok(entries)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes the entry of a file as git writes it.
    pub(in crate::git_index) fn entry_of(path: &str, mode: u32) -> Vec<u8> {
        let mut entry = vec![0; ID_AT];
        entry[MODE_AT..MODE_AT + 4].copy_from_slice(&mode.to_be_bytes());
        entry.extend([0x5A; 20]);
        entry.extend(u16::try_from(path.len().min(0xFFF)).unwrap().to_be_bytes());
        entry.extend_from_slice(path.as_bytes());
        entry.resize((entry.len() + 8) / 8 * 8, 0);
        entry
    }

    fn is_refused(part: &[u8]) -> bool {
        index_part_entries(part, 20).is_err()
    }

    #[test]
    fn reads_what_git_writes() {
        let long = "x/".repeat(2047) + "y";
        let part = [("a", MODES[0]), ("b/c", MODES[2]), (&long, MODES[1])]
            .map(|(path, mode)| entry_of(path, mode))
            .concat();

        let entries = index_part_entries(&part, 20).unwrap();

        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.path, entry.mode))
            .collect();
        let expected = [
            (&b"a"[..], 0o100_644),
            (b"b/c", 0o120_000),
            (long.as_bytes(), 0o100_755),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn refuses_paths_that_git_would_not_check_out() {
        for bad in [
            &["b", "a"][..],
            &["a", "a"],
            &["../x"],
            &[".git/config"],
            &["git~1/config"],
            &["a", "a/b"],
            &["/a"],
            &[""],
        ] {
            let part: Vec<u8> = bad
                .iter()
                .flat_map(|path| entry_of(path, MODES[0]))
                .collect();
            assert!(is_refused(&part), "{bad:?}");
        }
        assert!(is_refused(&entry_of(".gitmodules", MODES[2])));
    }

    /// An entry with extended flags has two bytes more before its path. A reader that doesn't know
    /// them would read another path, and would look for the next entry at another offset.
    #[test]
    fn refuses_bytes_that_git_reads_differently() {
        let part = [entry_of("abc", MODES[0]), entry_of("b", MODES[0])].concat();
        assert!(!is_refused(&part));
        let flags_at = ID_AT + 20;

        for flag in [0x10, 0x20, 0x40, 0x80, 0x0F] {
            let mut changed = part.clone();
            changed[flags_at] |= flag;
            assert!(is_refused(&changed), "flags {flag:#x}");
        }
        for len in [0, 2, 0xFF] {
            let mut changed = part.clone();
            changed[flags_at + 1] = len;
            assert!(is_refused(&changed), "length {len}");
        }
        for padding in flags_at + 5..72 {
            let mut changed = part.clone();
            changed[padding] = b'x';
            assert!(is_refused(&changed), "padding at {padding}");
        }
        for end in 1..part.len() {
            assert!(end == 72 || is_refused(&part[..end]), "cut at {end}");
        }
    }

    #[test]
    fn refuses_modes_and_ids_that_git_does_not_write() {
        for mode in [0, 0o100_664, 0o100_600, 0o104_755, 0o40_000, 0o120_777] {
            assert!(is_refused(&entry_of("a", mode)), "{mode:o}");
        }
        let mut entry = entry_of("a", MODES[0]);
        entry[ID_AT..ID_AT + 20].fill(0);
        assert!(is_refused(&entry));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), id_len in 0_usize..40) {
            drop(index_part_entries(&bytes, id_len));
        }
    }
}
