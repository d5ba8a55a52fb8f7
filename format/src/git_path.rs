//! The checked path of something in an archive.

use std::fmt;

use crate::limits::{MAX_COMPONENT_LEN, MAX_PATH_LEN};
use crate::{Error, Result};

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

    /// Whether a component is `.git` in some spelling: git refuses such paths in a tree.
    pub fn has_dot_git(&self) -> bool {
        self.0
            .split(|&byte| byte == b'/')
            .any(|part| part.eq_ignore_ascii_case(b".git"))
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
    fn refuses_what_could_leave_the_tree() {
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
    fn knows_git_directories_in_every_spelling() {
        assert!(GitPath::parse(b"a/.GiT/config").unwrap().has_dot_git());
        assert!(!GitPath::parse(b".gitignore").unwrap().has_dot_git());
    }
}
