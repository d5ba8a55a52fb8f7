//! Finds out which mount the clone around the current directory borrows its objects from.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A repository of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BorrowedRepo {
    pub(crate) mount_point: PathBuf,
    /// The name of the repository, as in the mount.
    pub(crate) name: String,
}

/// Returns the repository that the clone around the current directory borrows from, or `None` if
/// the current directory isn't in such a clone.
pub(crate) fn borrowed_here() -> Option<BorrowedRepo> {
    // git knows where the file is, also in a work tree of `git worktree`. The command works while
    // all objects are missing.
    let output = Command::new("git")
        .args(["rev-parse", "--git-path", "objects/info/alternates"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = output.stdout.strip_suffix(b"\n")?;
    let alternates = std::fs::read(OsStr::from_bytes(path)).ok()?;
    alternates
        .split(|&byte| byte == b'\n')
        .find_map(borrowed_repo)
}

/// Parses a path of the form `<mount>/.objects/<name>/objects`.
fn borrowed_repo(path: &[u8]) -> Option<BorrowedRepo> {
    const OBJECTS: &[u8] = b"/.objects/";
    let path = path.strip_suffix(b"/objects")?;
    let at = path
        .windows(OBJECTS.len())
        .rposition(|window| window == OBJECTS)?;
    let (mount_point, name) = path.split_at(at);
    let name = std::str::from_utf8(name.get(OBJECTS.len()..)?).ok()?;
    Some(BorrowedRepo {
        mount_point: PathBuf::from(OsStr::from_bytes(mount_point)),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternate_names_the_mount_and_the_repository() {
        let borrowed = borrowed_repo(b"/a b/mnt/.objects/github.com/git/git/objects");

        let expected = BorrowedRepo {
            mount_point: "/a b/mnt".into(),
            name: "github.com/git/git".to_owned(),
        };
        assert_eq!(borrowed, Some(expected));
        assert_eq!(borrowed_repo(b"/srv/git/project.git/objects"), None);
    }
}
