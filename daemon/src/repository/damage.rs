//! Mirrors that are damaged on disk: after a failure that damage may have caused, the mirror is
//! examined. Refs whose objects are missing are dropped, and the next update brings them again. Any other damaged
//! mirror is set aside, and made anew from the store, or from upstream.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::followed::Repository;
use super::registry::Registry;
use super::worker::Worker;
use super::{MirrorState, RepositoryError};
use crate::app::tmp_directory;
use crate::error_chain::chain;
use crate::mirror::{
    ExamineError, Finding, GitError, MirrorError, drop_broken_refs, examine, is_disk_full,
};
use crate::publish::PublishError;

/// A mirror that is damaged again within this time stays as it is, and the state says so: to make it
/// anew has not helped, and upstream must not be asked for all of it again and again.
const PERIOD: Duration = Duration::from_hours(1);
/// The pause after an examination, as a multiple of the time that it took: examinations take a
/// twentieth of the time at most. One of a very large mirror takes minutes.
const PAUSE: u32 = 20;
/// A look that took no longer than this needs no pause: failed runs have pauses of their own.
const SHORT: Duration = Duration::from_secs(1);

/// When a mirror was last examined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Examined {
    ended: Instant,
    took: Duration,
}

impl Examined {
    fn is_recent(&self) -> bool {
        self.took > SHORT && self.ended.elapsed() < self.took * PAUSE
    }
}

/// Returns whether a damaged mirror may be the cause of `error`.
fn may_be_damage(error: &RepositoryError) -> bool {
    use MirrorError::{
        BadHead, Denied, Git, Io, LeftBehind, Moved, NotFound, Redirected, Shallow, TimedOut,
        Unreachable, Upstream,
    };
    let is_of_git = |error: &GitError| matches!(error, GitError::Failed { .. });
    match error {
        RepositoryError::Mirror(error) => match &**error {
            Git(error) => is_of_git(error),
            // Upstreams fail often, and to look costs much.
            Upstream {
                is_answering,
                source,
                ..
            } => *is_answering && is_of_git(source),
            Io { .. } => !is_disk_full(&**error),
            NotFound { .. }
            | Moved { .. }
            | Redirected { .. }
            | Denied { .. }
            | Unreachable { .. }
            | TimedOut { .. }
            | BadHead { .. }
            | Shallow { .. }
            | LeftBehind { .. } => false,
        },
        RepositoryError::Publish(error) => match &**error {
            PublishError::Git(error) | PublishError::RefusedTree(error) => is_of_git(error),
            PublishError::Io { .. } => !is_disk_full(&**error),
            PublishError::BrokenRef { .. }
            | PublishError::BadOutput { .. }
            | PublishError::Unusable { .. } => true,
            PublishError::RepositoryEmpty
            | PublishError::TreeTooLarge(_)
            | PublishError::Store(_)
            | PublishError::Format(_)
            | PublishError::Raced
            | PublishError::Behind
            | PublishError::LeaseLost
            | PublishError::Stopping => false,
        },
        RepositoryError::OtherSpelling { .. }
        | RepositoryError::UnknownHost { .. }
        | RepositoryError::NestedInGit { .. }
        | RepositoryError::CheckTimedOut
        | RepositoryError::Busy
        | RepositoryError::TooManyNew
        | RepositoryError::Forgotten
        | RepositoryError::Store(_)
        | RepositoryError::Stopping => false,
    }
}

impl Worker {
    /// Examines the mirror if damage may be the cause of `error`, with which a run ended. Repairs what
    /// can be repaired, and sets a damaged mirror aside. Returns whether it did either, so that the
    /// run is worth another try.
    pub(super) async fn has_mended_mirror(&mut self, error: &RepositoryError) -> bool {
        // There is no mirror if its first clone failed.
        if !may_be_damage(error) || !self.repository.mirror.exists() {
            return false;
        }
        let has_dropped = self.has_dropped_broken_refs(error).await;
        if self.examined.is_some_and(|examined| examined.is_recent()) {
            return has_dropped;
        }
        // It takes as much memory and as many processors as a publish.
        let Ok(_turn) = self.unless_stopping(self.publish_turn(&[])).await else {
            return false;
        };
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let look = move || {
            let git = registry.git.stopped_by(registry.stop.clone());
            examine(
                &git,
                &repository.mirror,
                registry.config.now().git.pack_timeout,
            )
        };
        let began = Instant::now();
        let looked = tokio::task::spawn_blocking(look).await;
        self.examined = Some(Examined {
            ended: Instant::now(),
            took: began.elapsed(),
        });
        let repo = &self.repository.name;
        let error = chain(error);
        match looked {
            Ok(Ok(Finding::Sound)) if has_dropped => true,
            Ok(Ok(Finding::Sound)) => {
                info!(%repo, error, "The mirror of {repo} is sound: the failure has another cause");
                false
            }
            Ok(Ok(Finding::Repaired(removed))) => {
                warn!(%repo, error, ?removed, "Repaired the mirror of {repo}: removed damaged files");
                true
            }
            Ok(Ok(Finding::Damaged(damage))) => {
                let damage = chain(&damage);
                warn!(%repo, error, damage, "The mirror of {repo} is damaged");
                self.has_set_aside().await
            }
            Ok(Err(ExamineError::Stopping)) | Err(_) => false,
            Ok(Err(failure)) => {
                let failure = chain(&failure);
                warn!(%repo, error = failure, "The mirror of {repo} can't be examined");
                has_dropped
            }
        }
    }

    /// Drops the refs of the mirror whose objects it doesn't have. Returns whether there were any. They are
    /// no reason to make the mirror anew, unless other refs need these objects, too: the examination finds that out.
    /// It costs little, so it needs no pause.
    async fn has_dropped_broken_refs(&self, error: &RepositoryError) -> bool {
        let (git, mirror) = (self.registry.git.clone(), self.repository.mirror.clone());
        let drop_them = move || drop_broken_refs(&git, &mirror);
        match tokio::task::spawn_blocking(drop_them).await {
            Ok(Ok(dropped)) if !dropped.is_empty() => {
                let (repo, refs) = (&self.repository.name, dropped.join(", "));
                let error = chain(error);
                warn!(%repo, error, refs, "Dropped refs of the mirror of {repo} whose objects are missing: {refs}");
                true
            }
            // The examination finds out why it failed.
            Ok(_) | Err(_) => false,
        }
    }

    /// Sets the damaged mirror aside, unless that was done a short time ago.
    async fn has_set_aside(&mut self) -> bool {
        let repo = self.repository.name.clone();
        if self.set_aside_at.is_some_and(|at| at.elapsed() < PERIOD) {
            let advice = format!("POST /api/v1/repos/{repo}/forget makes it anew");
            warn!(%repo, advice, "The mirror of {repo} is damaged again within an hour, and is left as it is");
            return false;
        }
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let done = tokio::task::spawn_blocking(move || set_aside(&registry, &repository)).await;
        match done {
            Ok(Ok(())) => {
                warn!(%repo, "The damaged mirror of {repo} is made anew");
                self.set_aside_at = Some(Instant::now());
                true
            }
            Err(_) => false,
            Ok(Err(error)) => {
                warn!(%repo, %error, "The damaged mirror of {repo} can't be set aside");
                false
            }
        }
    }
}

/// Moves the mirror, or its remains, out of the way, and removes it.
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
    // The next start sweeps what can't be removed now.
    aside.close().ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn failed() -> GitError {
        GitError::Failed {
            command: "x".to_owned(),
            status: std::process::ExitStatus::from_raw(128 << 8),
            stderr: "whatever it says".to_owned(),
        }
    }

    #[test]
    fn only_what_damage_can_cause_is_a_reason_to_look() {
        let upstream = |is_answering| {
            let (url, source) = ("u".to_owned(), failed());
            RepositoryError::Mirror(Arc::new(MirrorError::Upstream {
                url,
                is_answering,
                source,
            }))
        };
        let publish = |error| RepositoryError::Publish(Arc::new(error));

        assert!(may_be_damage(&publish(PublishError::Git(failed()))));
        assert!(may_be_damage(&upstream(true)));
        assert!(!may_be_damage(&upstream(false)));
        let full = GitError::DiskFull {
            command: "x".to_owned(),
            stderr: String::new(),
        };
        assert!(!may_be_damage(&publish(PublishError::Git(full))));
        assert!(!may_be_damage(&publish(PublishError::RepositoryEmpty)));
        assert!(!may_be_damage(&RepositoryError::Busy));
    }

    #[test]
    fn long_looks_take_a_twentieth_of_the_time() {
        let examined = |took: u64, ago: u64| Examined {
            ended: Instant::now()
                .checked_sub(Duration::from_secs(ago))
                .unwrap(),
            took: Duration::from_secs(took),
        };

        assert!(examined(6, 110).is_recent());
        assert!(!examined(6, 130).is_recent());
        assert!(!examined(1, 0).is_recent());
    }
}
