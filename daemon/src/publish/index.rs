//! Git's index (`gitformat-index(5)`), version 2, in parts that each depend on one run only.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cachewfs_format::GitHash;

use super::PublishError;
use super::tree::TreeEntry;

/// Returns the first 12 bytes of an index: signature, version, number of entries.
pub(super) fn header(entries: u32) -> Vec<u8> {
    [b"DIRC", &2_u32.to_be_bytes()[..], &entries.to_be_bytes()].concat()
}

/// The fields of `stat` for a file in a mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileStat {
    pub(super) ino: u64,
    /// Modification time in seconds since the epoch.
    pub(super) mtime: i64,
    /// Length in bytes.
    pub(super) size: u64,
}

/// Appends the entry of a file to an index part.
///
/// Git compares only size and time, because the archives set `core.checkStat=minimal`. Libgit2 also
/// compares the inode and the owner, so the inode is that of the mount, and the owner is root as in
/// a mount. The device is 0, because the publisher doesn't know it.
pub(super) fn push_entry(part: &mut Vec<u8>, entry: &TreeEntry, stat: FileStat) {
    let start = part.len();
    let mtime = u32::try_from(stat.mtime).unwrap_or(u32::MAX);
    // The index holds only the lowest 32 bits of inode and size.
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
    let (ino, size) = (low(stat.ino), low(stat.size));
    let path = entry.path.as_bytes();
    let fields = [
        mtime,
        0,
        mtime,
        0,
        0,
        ino,
        entry.kind.git_mode(),
        0,
        0,
        size,
    ];
    for field in fields {
        part.extend_from_slice(&u32::to_be_bytes(field));
    }
    part.extend_from_slice(entry.oid.as_bytes());
    let name_len = u16::try_from(path.len().min(0xFFF)).unwrap_or(0xFFF);
    part.extend_from_slice(&name_len.to_be_bytes());
    part.extend_from_slice(path);
    // One to eight NULs end an entry, so that its length is a multiple of eight.
    let len = part.len() - start;
    part.resize(start + (len + 8) / 8 * 8, 0);
}

/// Returns the bytes after the entries: the tree extension, if there is one, and the checksum of
/// the whole index. `entries` is the hash state after header and entries.
///
/// Git itself can do without a checksum (`index.skipHash`). But `git fsck` before git 2.40, libgit2
/// before 1.8, go-git, dulwich and isomorphic-git refuse an index without one.
pub(super) fn trailer(tree_extension: Option<&[u8]>, mut entries: GitHash) -> Vec<u8> {
    let mut trailer = Vec::new();
    if let Some(tree) = tree_extension {
        trailer.extend_from_slice(b"TREE");
        trailer.extend_from_slice(&u32::try_from(tree.len()).unwrap_or(0).to_be_bytes());
        trailer.extend_from_slice(tree);
    }
    entries.update(&trailer);
    trailer.extend_from_slice(&entries.finish());
    trailer
}

/// Reads the payload of the tree extension (cache tree) from an index that `git read-tree` wrote
/// with `index.recordEndOfIndexEntries`.
///
/// Returns `None` if the index isn't as expected, because git works without the extension.
pub(super) fn read_tree_extension(
    index: &Path,
    id_len: usize,
) -> Result<Option<Vec<u8>>, PublishError> {
    let io = || PublishError::at(index);
    let file = File::open(index).map_err(io())?;
    let len = file.metadata().map_err(io())?.len();
    // The last extension is EOIE: signature, length, offset of the extensions, hash. The checksum
    // of the index follows. EOIE spares the daemon a pass over all entries.
    let hash_len = id_len as u64;
    let Some(at) = len.checked_sub(12 + 2 * hash_len) else {
        return Ok(None);
    };
    let mut end = [0; 12];
    file.read_exact_at(&mut end, at).map_err(io())?;
    let Some(offset) = end
        .strip_prefix(b"EOIE")
        .and_then(|fields| u32_at(fields, 4))
    else {
        return Ok(None);
    };
    let Some(extensions_len) = at.checked_sub(u64::from(offset)) else {
        return Ok(None);
    };
    let mut extensions = vec![0; usize::try_from(extensions_len).unwrap_or(0)];
    file.read_exact_at(&mut extensions, u64::from(offset))
        .map_err(io())?;
    Ok(find_extension(&extensions, *b"TREE"))
}

fn find_extension(mut extensions: &[u8], signature: [u8; 4]) -> Option<Vec<u8>> {
    loop {
        let found = extensions.get(..4)?;
        let len = usize::try_from(u32_at(extensions, 4)?).ok()?;
        let payload = extensions.get(8..len.checked_add(8)?)?;
        if found == signature {
            return Some(payload.to_owned());
        }
        extensions = extensions.get(len + 8..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use cachewfs_format::{GitPath, ObjectId};

    use super::*;
    use crate::publish::tree::TreeEntryKind;

    #[test]
    fn entries_are_padded_with_one_to_eight_nuls() {
        for len in 1..20_usize {
            let entry = TreeEntry {
                kind: TreeEntryKind::File,
                oid: ObjectId::from_bytes(&[7; 20]).unwrap(),
                blob_len: 3,
                path: GitPath::parse(&vec![b'x'; len]).unwrap(),
            };
            let mut part = Vec::new();

            let stat = FileStat {
                ino: 2,
                mtime: 1,
                size: 3,
            };
            push_entry(&mut part, &entry, stat);

            let padding = part.len() - 62 - len;
            assert!(
                part.len().is_multiple_of(8) && (1..=8).contains(&padding),
                "{len}: {padding}"
            );
        }
    }

    #[test]
    fn finds_an_extension_behind_others() {
        let bytes = b"LINK\0\0\0\x02xxTREE\0\0\0\x03abc";

        assert_eq!(find_extension(bytes, *b"TREE").unwrap(), b"abc");
        assert_eq!(find_extension(bytes, *b"REUC"), None);
    }
}
