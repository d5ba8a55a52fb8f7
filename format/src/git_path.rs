//! The checked path of a file, directory or symbolic link in an archive.

use std::fmt;

use crate::limits::{MAX_COMPONENT_LEN, MAX_PATH_LEN};
use crate::{Error, Result, dot_git};

/// The bits of a git mode that have the type.
const TYPE_MASK: u32 = 0o170_000;
const SYMLINK: u32 = 0o120_000;

/// A relative path in bytes, as in a git tree: components between slashes, not necessarily UTF-8.
///
/// No component is empty, `.` or `..`, and no byte is NUL. So the path, joined to a directory,
/// stays below that directory, as long as extraction follows no symbolic link on the way.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GitPath(Box<[u8]>);

impl GitPath {
    /// Checks `bytes`, and makes a path of them.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |reason| Err(Error::BadPath { reason });
        if bytes.len() > MAX_PATH_LEN {
            return bad("it is longer than 4096 bytes");
        }
        if bytes.contains(&0) {
            return bad("it has a NUL byte");
        }
        for component in bytes.split(|&byte| byte == b'/') {
            match component {
                b"" => return bad("a component is empty"),
                b"." | b".." => return bad("a component is '.' or '..'"),
                _ if component.len() > MAX_COMPONENT_LEN => {
                    return bad("a component is longer than 255 bytes");
                }
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the bytes of the path, which has no slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Refuses a path that git, with its strictest rules, wouldn't check out as a file of git mode
    /// `mode`.
    ///
    /// No component may be a name that some filesystem treats as `.git`. A symbolic link may not be
    /// called `.gitmodules`, because git could read a file outside of the work tree through it.
    pub fn check_out_as(&self, mode: u32) -> Result<()> {
        let is_symlink = mode & TYPE_MASK == SYMLINK;
        let mut components = self.0.split(|&byte| byte == b'/');
        let reason = if components.clone().any(dot_git::is_dot_git) {
            "a component is '.git', or a name that some filesystem treats as '.git'"
        } else if is_symlink && components.any(dot_git::is_dot_gitmodules) {
            "'.gitmodules' is a symbolic link"
        } else {
            return Ok(());
        };
        Err(Error::BadPath { reason })
    }
}

impl fmt::Display for GitPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for GitPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GitPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_git_allows_in_a_tree() {
        for good in [
            &b"a"[..],
            b"a/b",
            b" ",
            b"a\nb/'\"",
            b"\xff\xfe",
            b"...",
            b"a:b",
            b"-x",
        ] {
            assert_eq!(GitPath::parse(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn refuses_paths_that_leave_the_tree() {
        for bad in [
            &b""[..],
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"a/../b",
            b"..",
            b"a\0",
            &[b'x'; 300],
        ] {
            assert!(GitPath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn refuses_paths_that_git_refuses_to_check_out() {
        let is_refused = |path: &[u8], mode| {
            let path = GitPath::parse(path).unwrap();
            path.check_out_as(mode).is_err()
        };

        assert!(is_refused(b"a/.GiT/config", 0o100_644));
        assert!(is_refused(b"a/git~1/config", 0o100_644));
        assert!(is_refused(b"a/.gitmodules", SYMLINK));
        assert!(!is_refused(b"a/.gitmodules", 0o100_644));
        assert!(!is_refused(b".gitignore", SYMLINK));
    }
}
