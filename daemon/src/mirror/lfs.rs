//! Git LFS objects of upstream, which git-lfs fetches.
//!
//! It runs in a repository of our own, whose one commit has nothing but the pointers that are wanted:
//! so it looks through no history, fetches nothing else, and reads no `.lfsconfig`, with which
//! a repository could send the daemon to any server.

use std::path::Path;
use std::time::Duration;

use tracing::debug;

use super::{Git, GitError, Upstream};

const BRANCH: &str = "refs/heads/wanted";

/// Returns whether git finds a git-lfs that works.
pub(crate) fn has_git_lfs(git: &Git) -> Result<bool, GitError> {
    let asked = git
        .command("lfs")
        .args(["version"])
        .time_limit(Duration::from_mins(1))
        .effect();
    match asked {
        Ok(()) => Ok(true),
        Err(error) if error.exit_code().is_some() => {
            debug!(%error, "git finds no git-lfs that works");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Fetches LFS objects, each given by its id and the pointer to it, into a new bare repository at
/// `directory`, where they are below `lfs/objects`.
pub(crate) fn fetch_lfs_objects<'a>(
    git: &Git,
    upstream: &Upstream,
    (directory, wanted): (&Path, impl IntoIterator<Item = (&'a str, String)>),
    time_limit: Duration,
) -> Result<(), GitError> {
    git.command("init")
        .args(["--bare", "--quiet", "--template="])
        .args(["--object-format=sha1", "--"])
        .args([directory])
        .effect()?;
    git.in_repository(directory, "fast-import")
        .args(["--quiet"])
        .input(commit_of(wanted))
        .effect()?;
    let mut fetch = git.in_repository(directory, "lfs");
    if let Some(config_home) = git.config_home() {
        // For an upstream on this machine, git-lfs runs git without any of git's variables.
        fetch = fetch.variable("XDG_CONFIG_HOME", config_home);
    }
    fetch
        // Fetched for each command: what an earlier one was given may have expired.
        .secrets(&upstream.git_secrets(git)?)
        .config("remote.origin.url", remote_url(upstream))
        .args(["fetch", "origin", BRANCH])
        .time_limit(time_limit)
        .effect()
}

/// The URL of `upstream` as git-lfs wants it: unlike git it finds no directory with `.git` added.
fn remote_url(upstream: &Upstream) -> String {
    let url = upstream.url();
    match upstream.directory() {
        Some(directory) if !directory.exists() => format!("{url}.git"),
        _ => url.to_owned(),
    }
}

/// What `git fast-import` makes a commit of.
fn commit_of<'a>(wanted: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut commit = format!("commit {BRANCH}\ncommitter cachewfs <> 0 +0000\ndata 0\n");
    for (id, pointer) in wanted {
        let file = format!("M 100644 inline {id}\ndata {}\n{pointer}\n", pointer.len());
        commit.push_str(&file);
    }
    commit
}
