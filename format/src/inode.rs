//! Inode numbers of a mount. The index of an archive has those of its files, so that programs that
//! compare them find every file unchanged.

use crate::{Digest, RepoName};

/// Returns the number of the inode that `fields` identify: the first 63 bits of a digest of them,
/// never 0 or 1. Two of a million inodes have the same number with a probability of 5 in 10^8.
pub fn inode_of(fields: &[&[u8]]) -> u64 {
    let mut identity = Vec::new();
    for field in fields {
        let len = u64::try_from(field.len()).unwrap_or(u64::MAX);
        identity.extend_from_slice(&len.to_le_bytes());
        identity.extend_from_slice(field);
    }
    let digest = Digest::of(&identity);
    let number = digest
        .as_bytes()
        .first_chunk()
        .copied()
        .map_or(0, u64::from_le_bytes);
    // 0 means nothing and 1 is the root; the sign bit stays clear for programs that use off_t.
    (number & (u64::MAX >> 1)).max(2)
}

/// Returns the inode number of a file or symbolic link in the work tree of `repo`.
///
/// `blob` is the raw id of its git blob, `mode` git's mode, `mtime` its time in seconds since the
/// epoch. The blob alone doesn't identify the bytes of the file: attributes convert it. The time does, as
/// a publisher gives a path another time whenever its bytes change.
pub fn work_tree_inode(
    repo: &RepoName,
    path: &[u8],
    (blob, mode, mtime): (&[u8], u32, i64),
) -> u64 {
    let (mode, mtime) = (mode.to_le_bytes(), mtime.to_le_bytes());
    let repo = repo.as_str().as_bytes();
    inode_of(&[b"work tree", repo, path, blob, &mode, &mtime])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_identified_by_path_blob_mode_and_time() {
        let repo = RepoName::parse("t/r").unwrap();
        let one = work_tree_inode(&repo, b"a", (&[1; 20], 0o100_644, 400_000_000));

        // docs/format.md has this number: a publisher and a mount have to agree on it.
        assert_eq!(one, 4_770_825_274_948_719_283);
        for other in [
            work_tree_inode(&repo, b"b", (&[1; 20], 0o100_644, 400_000_000)),
            work_tree_inode(&repo, b"a", (&[2; 20], 0o100_644, 400_000_000)),
            work_tree_inode(&repo, b"a", (&[1; 20], 0o100_755, 400_000_000)),
            work_tree_inode(&repo, b"a", (&[1; 20], 0o100_644, 400_000_001)),
        ] {
            assert_ne!(other, one);
        }
    }
}
