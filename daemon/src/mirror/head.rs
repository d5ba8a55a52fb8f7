//! [`Head`]: the HEAD of upstream.

use cachewfs_format::is_ref_name;

/// The ref that keeps the object of a detached HEAD reachable.
pub(super) const DETACHED_HEAD: &str = "refs/cachewfs/head";

/// A branch that doesn't exist, for the mirror's HEAD. Used if upstream's HEAD names a branch that
/// doesn't exist, and the mirror's HEAD would otherwise name one that does.
pub(super) const UNBORN_BRANCH: &str = "refs/heads/unborn";

/// At most this many characters of an invalid name are shown.
const MAX_SHOWN: usize = 100;

/// The HEAD of upstream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// HEAD is a symbolic ref to this branch (full name).
    Branch(Vec<u8>),
    /// HEAD names this object, directly or through a ref that is no branch. A clone then has a
    /// detached HEAD.
    Detached { target: Vec<u8> },
    /// HEAD names a branch that doesn't exist. Upstream doesn't tell which.
    Unborn,
    /// HEAD names an invalid ref: it could be an option of git, or a path out of the mirror.
    Impossible { name: String },
}

impl Head {
    /// Parses the output of `git ls-remote --symref <url> HEAD`, with or without more refs.
    pub(super) fn parse(answer: &[u8]) -> Self {
        let lines = || {
            let lines = answer.split(|&byte| byte == b'\n');
            lines.filter_map(|line| line.strip_suffix(b"\tHEAD"))
        };
        let symref = lines().find_map(|line| line.strip_prefix(b"ref: "));
        let target = lines().find(|line| !line.starts_with(b"ref: "));
        match (symref, target) {
            (Some(name), _) if !is_ref_name(name) => {
                let name = String::from_utf8_lossy(name);
                let name = name.chars().take(MAX_SHOWN).collect();
                Self::Impossible { name }
            }
            (Some(name), _) if name.starts_with(b"refs/heads/") => Self::Branch(name.to_owned()),
            (_, Some(target)) => Self::Detached {
                target: target.to_owned(),
            },
            (_, None) => Self::Unborn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_kind_of_head() {
        let oid = "1a".repeat(20);
        let of = |symref: &str| {
            let answer = format!("ref: {symref}\tHEAD\n{oid}\tHEAD\n{oid}\trefs/remotes/x/HEAD\n");
            Head::parse(answer.as_bytes())
        };
        let detached = Head::Detached {
            target: oid.clone().into(),
        };

        assert_eq!(
            of("refs/heads/main"),
            Head::Branch(b"refs/heads/main".into())
        );
        assert_eq!(of("refs/meta/config"), detached);
        assert_eq!(of("refs/tags/v1"), detached);
        assert_eq!(Head::parse(format!("{oid}\tHEAD\n").as_bytes()), detached);
        assert_eq!(Head::parse(b""), Head::Unborn);
        let latin = b"ref: refs/heads/gr\xfcn\tHEAD\n";
        assert_eq!(
            Head::parse(latin),
            Head::Branch(b"refs/heads/gr\xfcn".into())
        );
        for bad in [
            "--delete",
            "HEAD",
            "refs/heads/../x",
            "refs/heads/a b",
            "/x",
        ] {
            let name = bad.to_owned();
            assert_eq!(of(bad), Head::Impossible { name });
        }
    }
}
