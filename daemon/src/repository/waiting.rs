//! Waits while another daemon publishes the repository.
//!
//! Meanwhile the repository's task goes on with its other work: it updates the mirror for git
//! clients, and holds no turn to publish.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::RepositoryError;
use super::other_publish::{OtherPublish, poll_interval};
use super::request::TaskRequest;
use super::worker::{WaitOutcome, Worker};
use crate::metrics::JobClass;
use crate::store::Store;

impl Worker {
    /// Waits until `holder` has published the repository or seems to have gone.
    ///
    /// Serves requests for an update meanwhile. All other requests are added to `waiting`.
    pub(super) async fn while_published_elsewhere(
        &mut self,
        mut holder: Arc<str>,
        waiting: &mut Vec<TaskRequest>,
    ) -> Result<WaitOutcome, RepositoryError> {
        let repo = self.repository.name.clone();
        info!(%repo, %holder, "Waiting for the daemon {holder}, which publishes {repo}");
        let other = OtherPublish::of(&self.context, &self.repository, Store::clone).await;
        let mut next_look = Instant::now() + poll_interval();
        loop {
            if waiting.iter().any(TaskRequest::is_forget) {
                return Ok(WaitOutcome::Forgotten);
            }
            let job = self.wait(JobClass::Publish);
            let waits_for = Arc::clone(&holder);
            self.repository
                .change_status(|status| status.wait_for(waits_for));
            let stop = self.context.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return Err(RepositoryError::Stopping),
                Some(request) = self.requests.recv() => {
                    let is_forget = request.is_forget();
                    waiting.push(request);
                    drop(job);
                    if !is_forget {
                        self.update_for(waiting).await?;
                    }
                }
                () = sleep_until(next_look) => {
                    match other.holder().await {
                        Some(present) => holder = present,
                        None => return Ok(WaitOutcome::Done),
                    }
                    next_look = Instant::now() + poll_interval();
                }
            }
        }
    }
}
