//! Mirrors that are damaged on disk: git's complaints tell, the mirror is set aside, and made anew of what is
//! in the store, or of upstream.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::followed::Repository;
use super::registry::Registry;
use super::worker::Worker;
use super::{MirrorState, RepositoryError};
use crate::app::tmp_directory;
use crate::error_chain::chain;
use crate::mirror::{Git, GitError, MirrorError};
use crate::publish::PublishError;

/// A mirror that is damaged again within this time is left as it is, and the state says so: to make it
/// anew has not helped, and upstream must not be asked for all of it again and again.
const PERIOD: Duration = Duration::from_hours(1);

/// What git says of objects and refs that can't be read (`LC_ALL=C`).
const COMPLAINTS: &[&str] = &[
    "bad object",
    "bad ref",
    "bad tree object",
    "bad signature",
    "cannot be accessed",
    "could not parse",
    "does not match index",
    "does not point to a valid object",
    "failed to read object",
    "inflate: data stream error",
    "index file",
    "is corrupt",
    "is far too short",
    "is not a GIT packfile",
    "is too small",
    "missing blob",
    "missing commit",
    "missing tree",
    "not a git repository",
    "revision walk setup failed",
    "unable to parse object",
    "unable to read",
    "unexpected line in",
    "unresolved delta",
    "unresolvable reference",
];

/// How sure an error is a sign of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    /// Nothing but the mirror can be meant.
    Certain,
    /// Upstream may be damaged, or lie; or git complains of something else.
    Possible,
}

/// Whether `error` may come from a damaged mirror.
fn suspicion(error: &RepositoryError) -> Option<Suspicion> {
    let (error, is_local) = match error {
        RepositoryError::Mirror(error) => match &**error {
            MirrorError::Git(error) => (error, true),
            MirrorError::Upstream { source, .. } => (source, false),
            _ => return None,
        },
        RepositoryError::Publish(error) => match &**error {
            PublishError::Git(error) => (error, true),
            _ => return None,
        },
        _ => return None,
    };
    let GitError::Failed { stderr, .. } = error else {
        return None;
    };
    let is_complaint = COMPLAINTS.iter().any(|text| stderr.contains(text));
    match (is_local, is_complaint) {
        (true, true) => Some(Suspicion::Certain),
        (true, false) | (false, true) => Some(Suspicion::Possible),
        // Upstreams fail often, and to look costs much.
        (false, false) => None,
    }
}

/// Whether something is missing that refs name or need. Reads neither git blobs nor, where there is a
/// commit-graph, commits.
fn lacks_something(git: &Git, mirror: &Path, limit: Duration) -> bool {
    let walked = git
        .in_repository(mirror, "rev-list")
        .args(["--objects", "--quiet", "--all"])
        .time_limit(limit)
        .effect();
    matches!(walked, Err(GitError::Failed { .. }))
}

impl Worker {
    /// Sets the mirror aside if `error`, with which a run ended, comes from damage; tells whether it
    /// did, so that the run is worth another try.
    pub(super) async fn has_set_damaged_mirror_aside(&mut self, error: &RepositoryError) -> bool {
        let is_soon = self.set_aside_at.is_some_and(|at| at.elapsed() < PERIOD);
        let Some(suspicion) = suspicion(error).filter(|_| !is_soon) else {
            return false;
        };
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let set_aside = move || {
            let (mirror, limit) = (&repository.mirror, registry.config.now().git.pack_timeout);
            let is_damaged =
                || suspicion == Suspicion::Certain || lacks_something(&registry.git, mirror, limit);
            // What failed may have been the clone that would have made it.
            let is_damaged = mirror.exists() && is_damaged();
            if is_damaged {
                set_aside(&registry, &repository)?;
            }
            Ok(is_damaged)
        };
        let repo = &self.repository.name;
        let done: Result<std::io::Result<bool>, _> = tokio::task::spawn_blocking(set_aside).await;
        match done {
            Ok(Ok(true)) => {
                warn!(%repo, error = chain(error), "The mirror of {repo} is damaged and is made anew");
                self.set_aside_at = Some(Instant::now());
                true
            }
            Ok(Ok(false)) | Err(_) => false,
            Ok(Err(error)) => {
                warn!(%repo, %error, "The damaged mirror of {repo} can't be set aside");
                false
            }
        }
    }
}

/// Moves what is at the place of the mirror away, and removes it.
pub(super) fn set_aside(registry: &Registry, repository: &Repository) -> std::io::Result<()> {
    let tmp = tmp_directory(&registry.config.now());
    let aside = tempfile::Builder::new()
        .prefix("damaged-")
        .tempdir_in(&tmp)?;
    match std::fs::rename(&repository.mirror, aside.path().join("mirror.git")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    repository.change_status(|status| status.state = MirrorState::Empty);
    // What can't be removed is swept at the next start.
    aside.close().ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn failed(stderr: &str) -> GitError {
        GitError::Failed {
            command: "x".to_owned(),
            status: std::process::ExitStatus::from_raw(128 << 8),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn what_git_says_of_the_mirror_is_told_from_what_may_be_upstreams_fault() {
        let upstream = |stderr: &str| {
            let (url, source) = ("u".to_owned(), failed(stderr));
            RepositoryError::Mirror(Arc::new(MirrorError::Upstream { url, source }))
        };
        let publish =
            |stderr: &str| RepositoryError::Publish(Arc::new(PublishError::Git(failed(stderr))));

        let bad = "fatal: bad object refs/heads/main";
        assert_eq!(suspicion(&publish(bad)), Some(Suspicion::Certain));
        assert_eq!(suspicion(&upstream(bad)), Some(Suspicion::Possible));
        assert_eq!(suspicion(&upstream("fatal: early EOF")), None);
        let other = publish("fatal: pathspec 'x' did not match");
        assert_eq!(suspicion(&other), Some(Suspicion::Possible));
        assert_eq!(suspicion(&RepositoryError::Busy), None);
    }
}
