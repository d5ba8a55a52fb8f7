//! Mends damaged mirrors. If a job fails and damage may be the cause, the mirror is examined.
//!
//! ```text
//! a failed job ─► drop refs whose objects are missing ─► examine ─► sound: the failure is real
//!                                                            ├► repaired: try again
//!                                                            └► damaged: set aside, recreate
//! ```
//!
//! Cheap and harmless steps come first. Dropped refs and removed files come back with the next
//! update or publish. Recreating the mirror costs upstream or the store a whole copy, so it is
//! the last resort.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::RepositoryError;
use super::context::Context;
use super::examination::LastExamination;
use super::handle::Repository;
use super::worker::Worker;
use crate::base::chain;
use crate::mirror::{
    ExamineError, Finding, GitError, MirrorError, drop_broken_refs, examine, is_disk_full,
};
use crate::publish::PublishError;

/// How long after a mirror was recreated it is not recreated again. If it is damaged again so
/// soon, recreating it doesn't help, and upstream must not have to send everything repeatedly.
const MIN_RECREATE_INTERVAL: Duration = Duration::from_hours(1);

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
            // Only if upstream itself answers. Upstreams fail often, and an examination is
            // expensive.
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
    /// Examines the mirror if damage may be the cause of `error`, the failure of a run. Repairs the
    /// mirror or sets it aside. Returns whether the mirror has changed, so that a retry makes
    /// sense.
    pub(super) async fn mend_mirror(&mut self, error: &RepositoryError) -> bool {
        // Without a mirror, the first clone failed: nothing can be damaged.
        if !may_be_damage(error) || !self.repository.mirror.exists() {
            return false;
        }
        // Before the pause is considered: dropping refs is cheap, and a single broken ref would
        // stop all updates for the length of the pause.
        let has_dropped = self.drop_broken_refs_of_mirror(error).await;
        if self.examined.is_some_and(|examined| examined.is_recent()) {
            return has_dropped;
        }
        // An examination takes as much memory and as many processors as a publish.
        let Ok(_turn) = self.unless_stopping(self.publish_turn(&[])).await else {
            return false;
        };
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        let look = move || {
            let git = context.git.stopped_by(context.stop.clone());
            examine(
                &git,
                &repository.mirror,
                context.config.now().git.pack_timeout,
            )
        };
        let began = Instant::now();
        let looked = tokio::task::spawn_blocking(look).await;
        self.examined = Some(LastExamination::since(began));
        let repo = &self.repository.name;
        let error = chain(error);
        match looked {
            Ok(Ok(Finding::Sound)) if has_dropped => true,
            Ok(Ok(Finding::Sound)) => {
                info!(%repo, error, "The mirror of {repo} is sound: the failure has another cause");
                false
            }
            Ok(Ok(Finding::Repaired(removed))) => {
                warn!(
                    %repo,
                    error,
                    ?removed,
                    "Repaired the mirror of {repo}: removed damaged files"
                );
                true
            }
            Ok(Ok(Finding::Damaged(damage))) => {
                let damage = chain(&damage);
                warn!(%repo, error, damage, "The mirror of {repo} is damaged");
                self.set_mirror_aside().await
            }
            Ok(Err(ExamineError::Stopping)) | Err(_) => false,
            Ok(Err(failure)) => {
                let failure = chain(&failure);
                warn!(%repo, error = failure, "Can't examine the mirror of {repo} for damage");
                has_dropped
            }
        }
    }

    /// Drops refs whose objects are missing from the mirror. Returns whether there were any.
    ///
    /// Such a ref alone is no reason to recreate the mirror. The examination that follows finds
    /// out whether other refs need the missing objects, too.
    async fn drop_broken_refs_of_mirror(&self, error: &RepositoryError) -> bool {
        let (git, mirror) = (self.context.git.clone(), self.repository.mirror.clone());
        let drop_them = move || drop_broken_refs(&git, &mirror);
        match tokio::task::spawn_blocking(drop_them).await {
            Ok(Ok(dropped)) if !dropped.is_empty() => {
                let (repo, refs) = (&self.repository.name, dropped.join(", "));
                let error = chain(error);
                warn!(
                    %repo,
                    error,
                    refs,
                    "Dropped refs of the mirror of {repo} whose objects are missing: {refs}"
                );
                true
            }
            // The examination that follows finds out why it failed.
            Ok(_) | Err(_) => false,
        }
    }

    /// Sets the damaged mirror aside, unless that happened a short time ago.
    async fn set_mirror_aside(&mut self) -> bool {
        let repo = self.repository.name.clone();
        if self
            .set_aside_at
            .is_some_and(|at| at.elapsed() < MIN_RECREATE_INTERVAL)
        {
            let advice = format!("POST /api/v1/repos/{repo}/forget recreates the mirror");
            warn!(
                %repo,
                advice,
                "The mirror of {repo} is damaged again within an hour, and is not recreated"
            );
            return false;
        }
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        let done = tokio::task::spawn_blocking(move || set_aside(&context, &repository)).await;
        match done {
            Ok(Ok(())) => {
                warn!(%repo, "Set the damaged mirror of {repo} aside; recreating it");
                self.set_aside_at = Some(Instant::now());
                true
            }
            Err(_) => false,
            Ok(Err(error)) => {
                warn!(%repo, %error, "Can't set the damaged mirror of {repo} aside");
                false
            }
        }
    }
}

/// Moves the mirror, or its remains, into `tmp` and deletes it.
pub(super) fn set_aside(context: &Context, repository: &Repository) -> std::io::Result<()> {
    let aside = repository.take_mirror_away(&context.config.now().data_dir.tmp())?;
    // If deleting fails, the next start deletes the rest.
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
    fn only_failures_that_damage_can_cause_lead_to_an_examination() {
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
}
