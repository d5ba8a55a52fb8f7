//! The checked path of something in an archive.

use std::fmt;

use crate::limits::{MAX_COMPONENT_LEN, MAX_PATH_LEN};
use crate::{Error, Result, dot_git};

/// The bits of git's modes that tell what something is.
const TYPE_MASK: u32 = 0o170_000;
const SYMLINK: u32 = 0o120_000;

/// A relative path of bytes, as git has them: not necessarily UTF-8, components between slashes.
///
/// No component is empty, `.` or `..`, and there is no NUL: joined to a directory, the path stays
/// below it (unless something on the way is a symbolic link, which extraction must not follow).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GitPath(Box<[u8]>);

impl GitPath {
    /// Checks `bytes`.
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

    /// The bytes, without a slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Refuses a path that git refuses to check out with its strictest rules. `mode` is git's.
    ///
    /// No component may be one that some filesystem takes for `.git`. A symbolic link may not be called
    /// `.gitmodules`: git would read a file outside of the work tree through it.
    pub fn check_out_as(&self, mode: u32) -> Result<()> {
        let is_symlink = mode & TYPE_MASK == SYMLINK;
        let mut components = self.0.split(|&byte| byte == b'/');
        let reason = if components.clone().any(dot_git::is_dot_git) {
            "a component is '.git', or is taken for it by some filesystem"
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
