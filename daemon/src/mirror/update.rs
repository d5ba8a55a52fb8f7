//! Updates a mirror: runs `git fetch` and makes HEAD equal to upstream's.
//!
//! ```text
//! list upstream ─► fetch ─► set HEAD ─► compare with the listing ─► equal: done
//!                    ▲                        └► differs: list again
//!                    │                              ├► the ref moved meanwhile: done
//!                    └──────── once ────────────────┴► the ref did not move: fetch again, or fail
//! ```

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::ask::{ask_upstream, ls_remote};
use super::compare::{differing, differing_refs};
use super::head::{DETACHED_HEAD, Head, UNBORN_BRANCH};
use super::listing::list_upstream;
use super::namespaces::mirrored_namespaces;
use super::query::{head_commit, shown_name};
use super::{Git, GitConfig, MirrorError, Upstream};

/// At most this many fetches per update, if upstream lists a ref with one object but serves
/// another. The second fetch may reach another of upstream's servers.
const MAX_FETCHES: usize = 2;

/// Makes the branches, tags, `namespaces` and HEAD of `mirror` equal to upstream's. The daemon's
/// own refs (`refs/cachewfs/`) are never pruned, because no refspec covers them.
///
/// git may succeed without updating a ref. So the mirror is compared afterwards with the refs that
/// upstream listed before. A ref that moved meanwhile is ignored: the next update fetches it.
pub(crate) fn update(
    git: &Git,
    upstream: &Upstream,
    what @ (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<(), MirrorError> {
    let mut listing = list_upstream(git, upstream, what, config)?;
    let mut left_behind = None;
    for _ in 0..MAX_FETCHES {
        // HEAD only after the fetch: until then its new branch may not exist in the mirror, and
        // readers would see an empty repository.
        let head = possible_head(upstream, listing.head())?;
        fetch(git, upstream, what, &head, config)?;
        follow_head(git, mirror, &head)?;
        if is_shallow(mirror) {
            let url = upstream.url().to_owned();
            return Err(MirrorError::Shallow { url });
        }
        // The listing is from before the fetch. So a difference has two possible reasons: git
        // skipped the ref, or the ref moved between listing and fetch. A second listing tells: only
        // refs that are equal in both listings count as left behind.
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
    // By default, git succeeds without updating refs that need shallow commits. `--update-shallow`
    // makes it update them, and `is_shallow` detects the result. A mirror that is shallow already
    // gets the missing history.
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
    ask_upstream(git, upstream, |secrets, url| {
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
            .args(["--", url])
            .args(&refspecs)
            .time_limit(config.fetch_timeout)
            .effect()
    })
}

/// Returns whether the mirror lacks a part of its history.
fn is_shallow(mirror: &Path) -> bool {
    let file = std::fs::metadata(mirror.join("shallow"));
    file.is_ok_and(|file| file.len() > 0)
}

/// Asks upstream for its HEAD.
pub(crate) fn head_of_upstream(
    git: &Git,
    upstream: &Upstream,
    mirror: &Path,
    config: &GitConfig,
) -> Result<Head, MirrorError> {
    let answer = ls_remote(git, upstream, (mirror, &[]), config)?;
    possible_head(upstream, Head::parse(&answer))
}

/// Fails if the name in `head` is not a valid ref name.
fn possible_head(upstream: &Upstream, head: Head) -> Result<Head, MirrorError> {
    match head {
        Head::Impossible { name } => {
            let url = upstream.url().to_owned();
            Err(MirrorError::BadHead { url, name })
        }
        head => Ok(head),
    }
}

/// Makes HEAD of `mirror` equal to upstream's.
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
            // The fetched object, which may be newer than the listed one. It may be a tag, so it is
            // peeled to its commit.
            let commit = git
                .in_repository(mirror, "rev-parse")
                .args(["--verify", &format!("{DETACHED_HEAD}^{{commit}}")])
                .text()?;
            git.in_repository(mirror, "update-ref")
                .args(["--no-deref", "HEAD", &commit])
                .effect()?;
        }
        Head::Unborn if head_commit(git, mirror)?.is_some() => {
            // Upstream may have a branch with this name, too, so try until a name is unborn.
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
        // `possible_head` has refused an impossible HEAD.
        Head::Unborn | Head::Impossible { .. } => {}
    }
    Ok(())
}

/// Makes HEAD of `mirror` a symbolic ref to `branch`.
pub(super) fn set_branch(git: &Git, mirror: &Path, branch: &[u8]) -> Result<(), MirrorError> {
    let path = mirror.join("HEAD");
    let present = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    // Most updates change nothing: reading the file saves a process.
    if present.trim_ascii().strip_prefix(b"ref: ") != Some(branch) {
        git.in_repository(mirror, "symbolic-ref")
            .args([OsStr::new("HEAD"), OsStr::from_bytes(branch)])
            .effect()?;
    }
    Ok(())
}
