//! Finds out where the repository around the current directory has its objects, if it borrows them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::git;

/// The place of objects that a repository borrows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BorrowedObjects {
    /// The repository is a clone. They are in the mounted repository at this path.
    OfMounted(PathBuf),
    /// The repository is a mounted one, or a copy of it. They are in its own git directory, at this
    /// path. Listings don't show that path, so a program that copies files leaves it out.
    Own(PathBuf),
}

/// Returns where the objects of the repository around `directory` or, without one, around the
/// current directory are. Returns `None` if there is no repository, or if it borrows nothing from a
/// mount.
pub(crate) fn borrowed_by(directory: Option<&Path>) -> Option<BorrowedObjects> {
    let (objects, lines) = alternates(directory)?;
    lines.iter().find_map(|line| borrowed(line, &objects))
}

/// Returns the directory `objects` of the repository around `directory` or, without one, around the
/// current directory, and the lines of its `alternates`. Returns `None` if git finds no repository.
pub(crate) fn alternates(directory: Option<&Path>) -> Option<(PathBuf, Vec<Vec<u8>>)> {
    // git knows where the file is, also in a work tree of `git worktree`. The command works while
    // all objects are missing.
    let arguments = ["rev-parse", "--git-path", "objects/info/alternates"];
    let said = git::ask(directory, &arguments)?;
    let file = Path::new(OsStr::from_bytes(said.strip_suffix(b"\n")?));
    let file = directory.unwrap_or(Path::new("")).join(file);
    let objects = file.parent()?.parent()?.to_owned();
    Some((objects, lines_of(&file)))
}

/// Returns the lines of a file `alternates`, or none if it doesn't exist.
pub(crate) fn lines_of(alternates: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read(alternates).unwrap_or_default();
    let lines = text.split(|&byte| byte == b'\n');
    // git takes lines that begin with `#` for comments.
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    lines.map(<[u8]>::to_vec).collect()
}

/// Parses a line of `alternates` in the directory `objects`. A mounted repository has a relative
/// path, a clone has `<mount>/<name>/.git/cachewfs/objects`, and a clone of an earlier version has
/// `<mount>/.objects/<name>/objects`.
pub(crate) fn borrowed(line: &[u8], objects: &Path) -> Option<BorrowedObjects> {
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    if line == b"../cachewfs/objects" {
        return Some(BorrowedObjects::Own(objects.join(path(line))));
    }
    if let Some(repository) = line.strip_suffix(b"/.git/cachewfs/objects") {
        return Some(BorrowedObjects::OfMounted(path(repository).to_owned()));
    }
    let directory = path(line.strip_suffix(b"/objects")?);
    let top = directory
        .ancestors()
        .find(|above| above.ends_with(".objects"))?;
    let name = directory.strip_prefix(top).ok()?;
    Some(BorrowedObjects::OfMounted(top.parent()?.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternate_names_the_mounted_repository() {
        let borrowed = |line: &str| borrowed(line.as_bytes(), ".git/objects".as_ref());
        let mounted = |path: &str| Some(BorrowedObjects::OfMounted(path.into()));

        assert_eq!(
            borrowed("/a b/mnt/github.com/git/git/.git/cachewfs/objects"),
            mounted("/a b/mnt/github.com/git/git")
        );
        assert_eq!(
            borrowed("/a b/mnt/.objects/github.com/git/git/objects"),
            mounted("/a b/mnt/github.com/git/git")
        );
        assert_eq!(
            borrowed("../cachewfs/objects"),
            Some(BorrowedObjects::Own(
                ".git/objects/../cachewfs/objects".into()
            ))
        );
        for other in ["/srv/git/project.git/objects", "../other/objects", ""] {
            assert_eq!(borrowed(other), None, "{other}");
        }
    }
}
