//! The file `HEAD` and the names of refs. A mount accepts no others, so a daemon publishes no
//! others.

use crate::{Error, ObjectId, Result};

const HEADS: &[u8] = b"refs/heads/";

/// The content of the file `HEAD` of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitHead {
    /// HEAD is a symbolic ref to this branch, named without `refs/heads/`.
    Branch(Vec<u8>),
    /// HEAD is this commit.
    Detached(ObjectId),
}

impl GitHead {
    /// Parses the content of a file `HEAD`.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let malformed = |reason| {
            let section = "HEAD";
            Error::Malformed { section, reason }
        };
        let line = content.trim_ascii_end();
        let Some(name) = line.strip_prefix(b"ref: ") else {
            let id = std::str::from_utf8(line).unwrap_or_default();
            let id = ObjectId::parse(id);
            return id
                .map(Self::Detached)
                .map_err(|_| malformed("it names neither a branch nor a commit"));
        };
        match name.strip_prefix(HEADS) {
            Some(branch) if is_ref_name(name) => Ok(Self::Branch(branch.to_owned())),
            Some(_) => Err(malformed("git doesn't allow the name of its branch")),
            None => Err(malformed("it names a ref outside refs/heads/")),
        }
    }

    /// Returns the content of the file `HEAD`.
    pub fn to_file(&self) -> Vec<u8> {
        match self {
            Self::Branch(name) => [b"ref: ", HEADS, name, b"\n"].concat(),
            Self::Detached(id) => format!("{id}\n").into_bytes(),
        }
    }
}

/// Returns whether git accepts `name` as the full name of a ref (`git-check-ref-format(1)`).
pub fn is_ref_name(name: &[u8]) -> bool {
    let is_bad = |byte: &u8| byte.is_ascii_control() || b" ~^:?*[\\".contains(byte);
    name.starts_with(b"refs/")
        && !name.ends_with(b".")
        && !name.iter().any(is_bad)
        && !name
            .windows(2)
            .any(|pair| pair == b".." || pair == b"//" || pair == b"@{")
        && !name
            .split(|&byte| byte == b'/')
            .any(|part| part.is_empty() || part.starts_with(b".") || part.ends_with(b".lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn head_is_a_branch_or_a_commit() {
        let branch = GitHead::parse(b"ref: refs/heads/a/b\n").unwrap();

        assert_eq!(branch.to_file(), b"ref: refs/heads/a/b\n");
        let detached = GitHead::parse(ID.as_bytes()).unwrap();
        assert_eq!(detached.to_file(), format!("{ID}\n").as_bytes());
        for bad in [
            "ref: refs/../x",
            "ref: HEAD",
            "",
            "ref: refs/tags/x",
            "ref: refs/heads/a\nb",
            "ref: refs/heads/a.lock",
            "ref: refs/heads/a.",
            // git writes this HEAD into a repository whose refs are in reftables.
            "ref: refs/heads/.invalid",
        ] {
            assert!(GitHead::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
