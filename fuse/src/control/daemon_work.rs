//! Tells a client what the daemon does while the mount waits for it: a first clone may take long.

use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use cachewfs_format::api::{JobClass, JobStatus, RepoStatus};
use tokio::sync::watch;
use tracing::debug;

use super::protocol::Progress;
use super::server::{ControlConnection, send_progress};

/// How long the mount waits before it asks what the daemon does. Most requests take less.
const FIRST_PERIOD: Duration = Duration::from_millis(500);
/// How long between two questions.
const PERIOD: Duration = Duration::from_secs(2);

impl ControlConnection {
    /// Waits for `work`, which needs the daemon. Reports meanwhile what the daemon does with `repo`
    /// or, if it does nothing or doesn't say it, `text`.
    pub(super) async fn while_daemon_works<T>(
        &self,
        (repo, progress): (&RepoName, &watch::Sender<Option<Progress>>),
        text: &str,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = Box::pin(work);
        send_progress(progress, text, 0, 0);
        let mut period = FIRST_PERIOD;
        loop {
            let asking = async {
                tokio::time::sleep(period).await;
                self.work_on(repo).await
            };
            tokio::select! {
                outcome = &mut work => return outcome,
                doing = asking => {
                    send_progress(progress, doing.as_deref().unwrap_or(text), 0, 0);
                }
            }
            period = PERIOD;
        }
    }

    /// Asks the daemon what it does with `repo`. A repository that the mount shows isn't cloned for
    /// the first time, so nobody waits long for it.
    async fn work_on(&self, repo: &RepoName) -> Option<String> {
        if self.repositories.is_resolved(repo) {
            return None;
        }
        match self.repositories.source().state(repo).await {
            Ok(state) => sentence(&state?),
            // It isn't known there yet, the policy hides it, or the daemon is away.
            Err(error) => {
                debug!(
                    "Can't ask what the daemon does with {repo}: {}",
                    chain(&error)
                );
                self.repositories.failure(repo)
            }
        }
    }
}

/// Returns what the daemon does with a repository, as a sentence.
fn sentence(state: &RepoStatus) -> Option<String> {
    let repo = &state.repo;
    let JobStatus {
        class,
        is_running,
        since_seconds,
        waits_for,
    } = state.job.as_ref()?;
    let (does, will) = match class {
        JobClass::Clone => ("clones", "clone"),
        JobClass::Update => ("updates its mirror of", "update its mirror of"),
        JobClass::Publish => ("publishes", "publish"),
        JobClass::Maintain => ("repacks", "repack"),
        JobClass::Lfs => ("fetches the LFS objects of", "fetch the LFS objects of"),
    };
    let doing = match (waits_for, is_running) {
        (Some(other), _) => format!("the daemon waits until {other} has published {repo}"),
        (None, true) => format!("the daemon {does} {repo}"),
        (None, false) => format!("the daemon has other work first, and will {will} {repo}"),
    };
    Some(match since_seconds {
        0 => doing,
        seconds => format!("{doing} ({seconds} s so far)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_a_sentence() {
        let said = |job: &str| {
            let state = format!(
                r#"{{"repo":"h/r","has_mirror":true,"state":"cloning","failure":null,
                "updated_at":null,"job":{job},"next_update_at":null,"published":null}}"#
            );
            sentence(&serde_json::from_str(&state).unwrap())
        };

        assert_eq!(said("null"), None);
        let cases = [
            (
                r#"{"class":"clone","is_running":true,"since_seconds":75}"#,
                "the daemon clones h/r (75 s so far)",
            ),
            (
                r#"{"class":"clone","is_running":false,"since_seconds":0}"#,
                "the daemon has other work first, and will clone h/r",
            ),
            (
                r#"{"class":"publish","is_running":false,"since_seconds":2,"waits_for":"b"}"#,
                "the daemon waits until b has published h/r (2 s so far)",
            ),
        ];
        for (job, expected) in cases {
            assert_eq!(said(job).as_deref(), Some(expected));
        }
    }
}
