//! The inode numbers of a mount.
//!
//! The published git index has the inode numbers of the mount's files too. So programs that compare
//! both, such as libgit2, see every file as unchanged.

use crate::{Digest, RepoName};

/// Returns the number of the inode that `fields` identify: 63 bits of a digest of the fields.
///
/// The number is never 0 or 1. Among a million inodes, two have one number with a probability of 5
/// in 10^8.
pub fn inode_of(fields: &[&[u8]]) -> u64 {
    let mut identity = Vec::new();
    // The length before each field keeps `ab`, `c` apart from `a`, `bc`.
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
    // 0 is no inode, and 1 is the root of the mount. The highest bit is 0 for programs that keep
    // the number in a signed integer.
    (number & (u64::MAX >> 1)).max(2)
}

/// Returns the inode number of a file or symbolic link in the work tree of `repo`.
///
/// `blob` is the raw id of its git blob, `mode` is git's mode, and `mtime` is its modification time
/// in seconds since the epoch.
///
/// The blob alone doesn't identify the bytes of the file, because git attributes convert them. The
/// time does: the publisher gives a path another time whenever its bytes change.
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

        // docs/format.md has this number, because publishers and mounts must compute the same one.
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
