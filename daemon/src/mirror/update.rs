//! Updates: `git fetch` into a mirror, with HEAD following upstream's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cachewfs_format::is_ref_name;

use super::ask::{ask_upstream, ls_remote};
use super::compare::{differing, differing_refs};
use super::listing::list_upstream;
use super::query::{head_commit, shown_name};
use super::{Git, MirrorError, Upstream};
use crate::config::GitConfig;

/// Keeps what a detached HEAD upstream names reachable.
pub(super) const DETACHED_HEAD: &str = "refs/cachewfs/head";

/// The branch that HEAD of a mirror names where upstream's HEAD names one that doesn't exist, and what
/// HEAD of the mirror named until then does exist.
pub(super) const UNBORN_BRANCH: &str = "refs/heads/unborn";

/// So much of a name that can't be one is shown, in characters.
const MAX_SHOWN: usize = 100;

/// At most so many fetches an update makes for a ref that upstream lists otherwise than it serves it. The second
/// may ask another of upstream's servers.
const MAX_FETCHES: usize = 2;

/// Makes heads, tags, `namespaces` and HEAD of `mirror` what they are upstream. Refs of our own
/// (`refs/cachewfs/`) are never pruned: no refspec covers them.
///
/// git may end well without updating a ref. So the mirror is compared afterwards with what upstream listed before.
/// A ref that moved upstream meanwhile counts for nothing: the next update brings it.
pub(crate) fn update(
    git: &Git,
    upstream: &Upstream,
    what @ (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<(), MirrorError> {
    let mut listing = list_upstream(git, upstream, what, config)?;
    let mut left_behind = None;
    for _ in 0..MAX_FETCHES {
        let head = possible_head(upstream, listing.head())?;
        fetch(git, upstream, what, &head, config)?;
        follow_head(git, mirror, &head)?;
        if is_shallow(mirror) {
            let url = upstream.url().to_owned();
            return Err(MirrorError::Shallow { url });
        }
        let differs = differing_refs(what, &listing)?;
        if differs.is_empty() {
            return Ok(());
        }
        let newer = list_upstream(git, upstream, what, config)?;
        let moved = differing(&listing.refs(namespaces), &newer.refs(namespaces));
        left_behind = differs.difference(&moved).next().cloned();
        if left_behind.is_none() {
            return Ok(());
        }
        listing = newer;
    }
    Err(MirrorError::LeftBehind {
        url: upstream.url().to_owned(),
        name: shown_name(left_behind.unwrap_or_default()),
    })
}

/// Runs `git fetch` in `mirror`.
fn fetch(
    git: &Git,
    upstream: &Upstream,
    (mirror, namespaces): (&Path, &[String]),
    head: &Head,
    config: &GitConfig,
) -> Result<(), MirrorError> {
    // git ends well where it doesn't update a ref because upstream is shallow. So it is told to update
    // them all, and the mirror tells afterwards. A mirror that was shallow tries to become whole.
    let of_shallow = if is_shallow(mirror) {
        "--unshallow"
    } else {
        "--update-shallow"
    };
    let mut refspecs: Vec<String> = mirrored_namespaces(namespaces)
        .map(|namespace| format!("+{namespace}*:{namespace}*"))
        .collect();
    if matches!(head, Head::Detached { .. }) {
        refspecs.push(format!("+HEAD:{DETACHED_HEAD}"));
    }
    ask_upstream(git, upstream, |secrets, place| {
        git.in_repository(mirror, "fetch")
            .secrets(secrets)
            .args([
                "--prune",
                "--no-tags",
                "--quiet",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                of_shallow,
            ])
            .args(["--", place])
            .args(&refspecs)
            .time_limit(config.fetch_timeout)
            .effect()
    })
}

/// Returns whether the history of a mirror is cut off somewhere.
fn is_shallow(mirror: &Path) -> bool {
    let file = std::fs::metadata(mirror.join("shallow"));
    file.is_ok_and(|file| file.len() > 0)
}

/// Asks upstream what its HEAD is.
pub(crate) fn head_of_upstream(
    git: &Git,
    upstream: &Upstream,
    mirror: &Path,
    config: &GitConfig,
) -> Result<Head, MirrorError> {
    let answer = ls_remote(git, upstream, (mirror, &[]), config)?;
    possible_head(upstream, Head::parse(&answer))
}

/// Fails if no ref can be called as `head` says.
fn possible_head(upstream: &Upstream, head: Head) -> Result<Head, MirrorError> {
    match head {
        Head::Impossible { name } => {
            let url = upstream.url().to_owned();
            Err(MirrorError::BadHead { url, name })
        }
        head => Ok(head),
    }
}

/// The namespaces of refs that a mirror has of upstream's: heads, tags, and the configured ones.
pub(crate) fn mirrored_namespaces(configured: &[String]) -> impl Iterator<Item = &str> {
    ["refs/heads/", "refs/tags/"]
        .into_iter()
        .chain(configured.iter().map(String::as_str))
}

/// What upstream's HEAD is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is a symbolic ref to this branch, named in full.
    Branch(Vec<u8>),
    /// It is this object, or a symbolic ref to something else than a branch that names it. A clone has
    /// a detached HEAD then.
    Detached { target: Vec<u8> },
    /// It names a branch that doesn't exist. Upstream doesn't tell which.
    Unborn,
    /// It names what no ref can be called: an option, or a way out of the mirror.
    Impossible { name: String },
}

impl Head {
    /// Parses what `git ls-remote --symref <url> HEAD` prints, with or without more refs.
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

/// Makes HEAD of `mirror` what it is upstream.
fn follow_head(git: &Git, mirror: &Path, head: &Head) -> Result<(), MirrorError> {
    match head {
        Head::Branch(branch) => {
            set_branch(git, mirror, branch)?;
            if mirror.join(DETACHED_HEAD).exists() {
                git.in_repository(mirror, "update-ref")
                    .args(["-d", DETACHED_HEAD])
                    .effect()?;
            }
        }
        Head::Detached { .. } => {
            // The object that was fetched, which may be another than the listed one. It may be a tag.
            let commit = git
                .in_repository(mirror, "rev-parse")
                .args(["--verify", &format!("{DETACHED_HEAD}^{{commit}}")])
                .text()?;
            git.in_repository(mirror, "update-ref")
                .args(["--no-deref", "HEAD", &commit])
                .effect()?;
        }
        Head::Unborn if head_commit(git, mirror)?.is_some() => {
            let names = (0..).map(|number: u32| match number {
                0 => UNBORN_BRANCH.to_owned(),
                number => format!("{UNBORN_BRANCH}-{number}"),
            });
            for name in names {
                set_branch(git, mirror, name.as_bytes())?;
                if head_commit(git, mirror)?.is_none() {
                    break;
                }
            }
        }
        // The latter is an error by now.
        Head::Unborn | Head::Impossible { .. } => {}
    }
    Ok(())
}

/// Makes HEAD of `mirror` a symbolic ref to `branch`.
pub(super) fn set_branch(git: &Git, mirror: &Path, branch: &[u8]) -> Result<(), MirrorError> {
    let path = mirror.join("HEAD");
    let present = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    if present.trim_ascii().strip_prefix(b"ref: ") != Some(branch) {
        git.in_repository(mirror, "symbolic-ref")
            .args([OsStr::new("HEAD"), OsStr::from_bytes(branch)])
            .effect()?;
    }
    Ok(())
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
