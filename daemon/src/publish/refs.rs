//! The refs of a mirror, and the `HEAD` and `packed-refs` that each kind of archive has.

use std::path::Path;

use cachewfs_format::{ArchiveKind, Digest, ObjectId};

use super::PublishError;
use crate::mirror::Git;

const HEADS: &[u8] = b"refs/heads/";
const TAGS: &[u8] = b"refs/tags/";

/// One ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ref {
    pub(super) name: Vec<u8>,
    pub(super) target: ObjectId,
    /// The object that an annotated tag finally names, if the ref is one.
    pub(super) peeled: Option<ObjectId>,
}

/// The HEAD of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MirrorHead {
    /// The full name of a branch.
    Branch(Vec<u8>),
    /// The full name of a branch that doesn't exist.
    Unborn(Vec<u8>),
    Detached,
}

/// All refs of a mirror, sorted by name, and HEAD.
#[derive(Clone, Debug)]
pub(super) struct Refs {
    pub(super) head: MirrorHead,
    /// The commit of HEAD; the null id if it is unborn.
    pub(super) commit: ObjectId,
    /// All refs, including the hidden ones in `refs/cachewfs/`.
    pub(super) all: Vec<Ref>,
    namespaces: Vec<String>,
}

impl Refs {
    /// Reads the refs of `mirror`. Archives show heads, tags and the refs in `namespaces`.
    pub(super) fn read(
        git: &Git,
        mirror: &Path,
        namespaces: &[String],
    ) -> Result<Self, PublishError> {
        let output = match git
            .in_repository(mirror, "show-ref")
            .args(["--dereference"])
            .output()
        {
            // Git's exit code for "no refs".
            Err(error) if error.exit_code() == Some(1) => Vec::new(),
            output => output?,
        };
        let path = mirror.join("HEAD");
        let head = std::fs::read(&path).map_err(PublishError::at(&path))?;
        let symref = head.trim_ascii().strip_prefix(b"ref: ");
        let head = match symref {
            Some(name) if name.starts_with(HEADS) => MirrorHead::Branch(name.to_owned()),
            // If upstream's HEAD names no branch, a clone has a detached HEAD, and so do archives.
            Some(_) | None => MirrorHead::Detached,
        };
        let all = parse(&output)?;
        check_targets(git, mirror, &all)?;
        let mut refs = Self {
            head,
            commit: ObjectId::from_bytes(&[0; 20])?,
            all,
            namespaces: namespaces.to_vec(),
        };
        if refs.shown().next().is_none() && refs.head != MirrorHead::Detached {
            return Err(PublishError::RepositoryEmpty);
        }
        let is_there = |name: &[u8]| refs.all.iter().any(|each| each.name == name);
        if let MirrorHead::Branch(name) = &refs.head
            && !is_there(name)
        {
            // Any id tells whether ids are SHA-1 or SHA-256, which the null id depends on.
            let any = refs.all.first().ok_or(PublishError::RepositoryEmpty)?;
            refs.commit = any.target.to_null();
            refs.head = MirrorHead::Unborn(name.clone());
            return Ok(refs);
        }
        let commit = git
            .in_repository(mirror, "rev-parse")
            .args(["--verify", "--quiet", "HEAD^{commit}"])
            .text();
        refs.commit = match commit {
            // HEAD isn't unborn, so its commit should be there: the mirror is damaged.
            Err(error) if error.exit_code() == Some(1) => {
                let name = "HEAD".to_owned();
                return Err(PublishError::BrokenRef { name });
            }
            commit => ObjectId::parse(&commit?)?,
        };
        Ok(refs)
    }

    /// Returns whether HEAD has a commit, and so a tree.
    pub(super) fn has_commit(&self) -> bool {
        !matches!(self.head, MirrorHead::Unborn(_))
    }

    /// Returns the refs that the archives show, sorted by name.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Ref> {
        self.all.iter().filter(|each| {
            let starts = |prefix: &[u8]| each.name.starts_with(prefix);
            starts(HEADS)
                || starts(TAGS)
                || self
                    .namespaces
                    .iter()
                    .any(|namespace| starts(namespace.as_bytes()))
        })
    }

    /// Returns the digest of HEAD and all shown refs.
    pub(super) fn digest(&self) -> Digest {
        let state = [self.head_file(), self.packed_refs(ArchiveKind::Mirror)].concat();
        Digest::of(&state)
    }

    /// Returns all objects that refs name, including hidden refs, sorted and without duplicates.
    pub(super) fn tips(&self) -> Vec<ObjectId> {
        let mut tips: Vec<_> = self
            .all
            .iter()
            .map(|each| each.target)
            .chain(self.has_commit().then_some(self.commit))
            .collect();
        tips.sort_unstable();
        tips.dedup();
        tips
    }

    /// Returns the content of the file `HEAD`.
    pub(super) fn head_file(&self) -> Vec<u8> {
        match &self.head {
            MirrorHead::Branch(branch) | MirrorHead::Unborn(branch) => {
                [b"ref: ", &**branch, b"\n"].concat()
            }
            MirrorHead::Detached => format!("{}\n", self.commit).into_bytes(),
        }
    }

    /// Returns the name of HEAD's branch without `refs/heads/`, or `None` if there is no such
    /// branch.
    pub(super) fn default_branch(&self) -> Option<&[u8]> {
        match &self.head {
            MirrorHead::Branch(branch) => branch.strip_prefix(HEADS),
            MirrorHead::Unborn(_) | MirrorHead::Detached => None,
        }
    }

    /// Returns the content of the file `packed-refs` (`git-pack-refs(1)`).
    ///
    /// A mirror archive has all shown refs, a checkout archive has the refs of a clone.
    pub(super) fn packed_refs(&self, kind: ArchiveKind) -> Vec<u8> {
        let mut refs: Vec<Ref> = match kind {
            ArchiveKind::Mirror | ArchiveKind::Lfs => self.shown().cloned().collect(),
            ArchiveKind::Checkout => self.clone_refs(),
        };
        refs.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        let mut bytes = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
        for each in refs {
            bytes.extend_from_slice(format!("{} ", each.target).as_bytes());
            bytes.extend_from_slice(&each.name);
            bytes.push(b'\n');
            if let Some(peeled) = each.peeled {
                bytes.extend_from_slice(format!("^{peeled}\n").as_bytes());
            }
        }
        bytes
    }

    /// Returns the refs of a clone: tags, remote-tracking branches and the branch of HEAD.
    fn clone_refs(&self) -> Vec<Ref> {
        let mut refs = Vec::new();
        for each in self.shown() {
            if each.name.starts_with(TAGS) {
                refs.push(each.clone());
            }
            let Some(branch) = each.name.strip_prefix(HEADS) else {
                continue;
            };
            if Some(branch) == self.default_branch() {
                refs.push(each.clone());
            }
            // The symbolic ref `origin/HEAD` shadows a branch named `HEAD`, as in a clone by git.
            // It is kept nevertheless, because a mount turns remote-tracking branches back into
            // branches.
            let name = [b"refs/remotes/origin/", branch].concat();
            refs.push(Ref {
                name,
                ..each.clone()
            });
        }
        refs
    }
}

/// Fails if a ref of `mirror` is not in `found`.
///
/// `git show-ref` silently leaves out refs whose objects are missing. Without this check, a damaged
/// mirror would be published as if upstream had deleted these refs.
fn check_targets(git: &Git, mirror: &Path, found: &[Ref]) -> Result<(), PublishError> {
    let names = git
        .in_repository(mirror, "for-each-ref")
        .args(["--format=%(refname)"])
        .output()?;
    let mut names = names
        .split(|&byte| byte == b'\n')
        .filter(|name| !name.is_empty());
    let is_found = |name: &[u8]| {
        let place = found.binary_search_by(|each| each.name.as_slice().cmp(name));
        place.is_ok()
    };
    match names.find(|name| !is_found(name)) {
        Some(name) => Err(PublishError::BrokenRef {
            name: String::from_utf8_lossy(name).into_owned(),
        }),
        None => Ok(()),
    }
}

/// Parses the output of `git show-ref --dereference`. Returns the refs sorted by name.
fn parse(output: &[u8]) -> Result<Vec<Ref>, PublishError> {
    let mut refs: Vec<Ref> = Vec::new();
    for line in output
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let bad = || PublishError::bad_output(line);
        let space = line.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
        let (oid, name) = line.split_at(space);
        let name = name.trim_ascii_start();
        let target = std::str::from_utf8(oid).map_err(|_| bad())?;
        let target = ObjectId::parse(target).map_err(|_| bad())?;
        match name.strip_suffix(b"^{}") {
            Some(tag) => {
                let last = refs
                    .last_mut()
                    .filter(|last| last.name == tag)
                    .ok_or_else(bad)?;
                last.peeled = Some(target);
            }
            None => refs.push(Ref {
                name: name.to_owned(),
                target,
                peeled: None,
            }),
        }
    }
    refs.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs() -> Refs {
        let oid = |byte: &str| byte.repeat(20);
        let output = format!(
            "{} refs/cachewfs/retained/x\n{} refs/heads/a\n{} refs/heads/main\n\
             {} refs/tags/v1\n{} refs/tags/v1^{{}}\n",
            oid("05"),
            oid("01"),
            oid("02"),
            oid("03"),
            oid("02"),
        );
        Refs {
            head: MirrorHead::Branch(b"refs/heads/main".to_vec()),
            commit: ObjectId::parse(&oid("02")).unwrap(),
            all: parse(output.as_bytes()).unwrap(),
            namespaces: Vec::new(),
        }
    }

    #[test]
    fn a_checkout_archive_has_the_refs_of_a_clone() {
        let packed = String::from_utf8(refs().packed_refs(ArchiveKind::Checkout)).unwrap();

        let names: Vec<_> = packed
            .lines()
            .skip(1)
            .map(|line| line.split(' ').next_back().unwrap())
            .collect();
        let peeled = format!("^{}", "02".repeat(20));
        let expected = [
            "refs/heads/main",
            "refs/remotes/origin/a",
            "refs/remotes/origin/main",
            "refs/tags/v1",
            &peeled,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn hidden_refs_are_tips_but_not_shown() {
        let refs = refs();

        assert_eq!(refs.tips().len(), 4);
        let packed = refs.packed_refs(ArchiveKind::Mirror);
        assert!(!String::from_utf8(packed).unwrap().contains("cachewfs"));
    }
}
