//! Runs git commands that talk to upstream, and retries once if the repository has another URL.

use std::path::Path;

use super::git_secrets::GitSecrets;
use super::{Git, GitConfig, GitError, MirrorError, Upstream};

/// Asks upstream for HEAD and the refs that match `patterns`. Returns the output of
/// `git ls-remote --symref`.
pub(super) fn ls_remote(
    git: &Git,
    upstream: &Upstream,
    (mirror, patterns): (&Path, &[String]),
    config: &GitConfig,
) -> Result<Vec<u8>, MirrorError> {
    ask_upstream(git, upstream, |secrets, url| {
        git.in_repository(mirror, "ls-remote")
            .secrets(secrets)
            .args(["--symref", "--", url, "HEAD"])
            .args(patterns)
            .time_limit(config.ls_remote_timeout)
            .output()
    })
}

/// Runs `command` with credentials and the URL to ask. Runs it once more if upstream names another
/// URL of the same repository (GitLab wants `.git` at its end).
pub(super) fn ask_upstream<T>(
    git: &Git,
    upstream: &Upstream,
    command: impl Fn(&GitSecrets, &str) -> Result<T, GitError>,
) -> Result<T, MirrorError> {
    let run = |url: &str| {
        // Fetched for each command: a token of a GitHub App may have expired since the last one.
        let secrets = upstream.git_secrets(git);
        let done = secrets.and_then(|secrets| command(&secrets, url));
        done.map_err(|source| MirrorError::of_upstream(git, upstream, source))
    };
    let url = upstream.current_url();
    // `MirrorError::of_upstream` probes upstream after a failure and notes the URL that it names.
    // With a new URL, a second try can succeed. With the old one it would only repeat the failure.
    run(&url).or_else(|error| {
        let named = upstream.current_url();
        if named == url {
            Err(error)
        } else {
            run(&named)
        }
    })
}
