//! Assembles a git index from its parts.

use std::sync::Arc;

use super::cache_tree::tree_extension;
use super::entries::Entries;
use super::{IndexEntry, malformed};
use crate::limits::{MAX_INDEX_LEN, check_at_most};
use crate::{GitHash, PathSequence, Result};

/// The length of the header: signature, version, number of entries.
const HEADER_LEN: usize = 12;
/// The offset of the number of entries in the header.
const COUNT_AT: usize = 8;

/// A complete index, which git reads in the same way as this crate.
///
/// Its entries come from an archive, and are checked. The header, the tree extension and the
/// checksum are computed here, so that no unchecked byte of an archive gets into the index.
#[derive(Debug)]
pub struct GitIndex {
    bytes: Arc<[u8]>,
    id_len: usize,
    /// The offset of each entry in `bytes`, in the order of the paths.
    offsets: Vec<u32>,
}

impl GitIndex {
    fn view(&self) -> Entries<'_> {
        Entries {
            bytes: &self.bytes,
            id_len: self.id_len,
            offsets: &self.offsets,
        }
    }

    /// Returns the content of the file `index`.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Returns all entries, in the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        self.view().iter()
    }

    /// Returns entry `number`, or `None` if there are fewer entries.
    pub fn entry(&self, number: usize) -> Option<IndexEntry<'_>> {
        self.view().get(number)
    }

    /// Returns the offset of entry `number` in the index, in bytes.
    pub fn offset(&self, number: usize) -> Option<u32> {
        self.offsets.get(number).copied()
    }

    /// Returns the number of the first entry whose path is `path` or sorts after it.
    pub fn first_from(&self, path: &[u8]) -> usize {
        self.offsets.partition_point(|&offset| {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            IndexEntry::at(&self.bytes, offset, self.id_len).is_some_and(|entry| entry.path < path)
        })
    }
}

/// An index that is being assembled from its parts.
#[derive(Debug)]
pub struct GitIndexWriter {
    bytes: Vec<u8>,
    id_len: usize,
    offsets: Vec<u32>,
    paths: PathSequence,
}

impl GitIndexWriter {
    /// Starts an index whose object ids have `id_len` bytes.
    pub fn new(id_len: usize) -> Self {
        let mut bytes = b"DIRC\0\0\0\x02".to_vec();
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            id_len,
            offsets: Vec::new(),
            paths: PathSequence::default(),
        }
    }

    /// Checks and appends a part. Returns the offset of its end in the index, in bytes.
    ///
    /// The paths of the part must sort after those of the parts before it.
    pub fn push_part(&mut self, part: &[u8]) -> Result<u32> {
        let mut offset = self.bytes.len();
        check_at_most("index", offset.saturating_add(part.len()), MAX_INDEX_LEN)?;
        self.bytes.extend_from_slice(part);
        let position = |offset| u32::try_from(offset).map_err(|_| malformed("it is too long"));
        while offset < self.bytes.len() {
            let paths = &mut self.paths;
            let entry = IndexEntry::checked_at(&self.bytes, offset, (self.id_len, paths))?;
            self.offsets.push(position(offset)?);
            offset = offset.saturating_add(entry.len());
        }
        position(offset)
    }

    /// Completes the index with its header, its checksum and, if `has_cache_tree` is set, its tree
    /// extension.
    ///
    /// The extension names a tree for each directory of the index. Each has to be an object of the
    /// repository, because git may read it.
    pub fn finish(self, has_cache_tree: bool) -> GitIndex {
        let Self {
            mut bytes,
            id_len,
            offsets,
            ..
        } = self;
        let count = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        if let Some(field) = bytes.get_mut(COUNT_AT..HEADER_LEN) {
            field.copy_from_slice(&count.to_be_bytes());
        }
        if has_cache_tree {
            let extension = tree_extension(Entries {
                bytes: &bytes,
                id_len,
                offsets: &offsets,
            });
            bytes.extend(extension);
        }
        let mut hash = GitHash::of_format(id_len);
        hash.update(&bytes);
        bytes.extend(hash.finish());
        GitIndex {
            bytes: bytes.into(),
            id_len,
            offsets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git_index::entry::tests::entry_of;

    const FILE: u32 = 0o100_644;

    #[test]
    fn parts_follow_one_another() {
        let mut writer = GitIndexWriter::new(20);
        let first = [entry_of("a", FILE), entry_of("b/c", FILE)].concat();

        assert_eq!(writer.push_part(&first), Ok(12 + 136));
        assert_eq!(writer.push_part(b""), Ok(12 + 136));
        assert_eq!(writer.push_part(&entry_of("b/d", FILE)), Ok(12 + 208));
        let index = writer.finish(true);

        let paths: Vec<&[u8]> = index.entries().map(|entry| entry.path).collect();
        assert_eq!(paths, [&b"a"[..], b"b/c", b"b/d"]);
        assert_eq!(index.first_from(b"b"), 1);
        assert_eq!(index.first_from(b"c"), 3);
        assert!(index.bytes().starts_with(b"DIRC\0\0\0\x02\0\0\0\x03"));
    }

    #[test]
    fn parts_that_contradict_one_another_are_refused() {
        for (first, second) in [("b", "a"), ("a", "a"), ("a", "a/b"), ("a-", "a"), ("a", "")] {
            let mut writer = GitIndexWriter::new(20);
            writer.push_part(&entry_of(first, FILE)).unwrap();
            assert!(
                writer.push_part(&entry_of(second, FILE)).is_err(),
                "{first} {second}"
            );
        }
    }
}
