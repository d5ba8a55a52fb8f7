//! Commands that talk to upstream, which may say that the repository is elsewhere.

use std::path::Path;

use super::upstream::GitSecrets;
use super::{Git, GitError, MirrorError, Upstream};
use crate::config::GitConfig;

/// Asks upstream for HEAD and the refs that match `patterns`. Returns the output of `git ls-remote --symref`.
pub(super) fn ls_remote(
    git: &Git,
    upstream: &Upstream,
    (mirror, patterns): (&Path, &[String]),
    config: &GitConfig,
) -> Result<Vec<u8>, MirrorError> {
    ask_upstream(git, upstream, |secrets, place| {
        git.in_repository(mirror, "ls-remote")
            .secrets(secrets)
            .args(["--symref", "--", place, "HEAD"])
            .args(patterns)
            .time_limit(config.ls_remote_timeout)
            .output()
    })
}

/// Runs `command` with what it shows to upstream and the URL to ask; once more if upstream names another URL
/// of the repository (GitLab wants `.git` at its end).
pub(super) fn ask_upstream<T>(
    git: &Git,
    upstream: &Upstream,
    command: impl Fn(&GitSecrets, &str) -> Result<T, GitError>,
) -> Result<T, MirrorError> {
    let run = |place: &str| {
        // Fetched for each command: what an earlier one was given may have expired.
        let secrets = upstream.git_secrets(git);
        let done = secrets.and_then(|secrets| command(&secrets, place));
        done.map_err(|source| MirrorError::of_upstream(git, upstream, source))
    };
    let place = upstream.place();
    run(&place).or_else(|error| {
        let named = upstream.place();
        if named == place {
            Err(error)
        } else {
            run(&named)
        }
    })
}
