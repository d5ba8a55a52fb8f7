//! Frees disk space when a job finds the disk full: evicts copies of segments in the bucket. Then
//! the job is retried at once.

use std::error::Error;
use std::sync::Arc;

use cachewfs_format::RepoName;
use tracing::info;

use super::context::Context;
use crate::base::chain;
use crate::mirror::is_disk_full;

/// How much was evicted so far for one job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum EvictedCopies {
    #[default]
    Nothing,
    Half,
    All,
}

impl Context {
    /// Evicts copies if a job failed because the disk is full: half of them the first time, all the
    /// second. Returns whether the job should be retried.
    pub(super) async fn make_room(
        self: &Arc<Self>,
        repo: &RepoName,
        error: &(dyn Error + Send + Sync + 'static),
        evicted: &mut EvictedCopies,
    ) -> bool {
        if !is_disk_full(error) || self.stop.is_cancelled() {
            return false;
        }
        // Half first: each evicted copy may have to be read from the bucket again.
        let all = match evicted {
            EvictedCopies::Nothing => false,
            EvictedCopies::Half => true,
            EvictedCopies::All => return false,
        };
        *evicted = if all {
            EvictedCopies::All
        } else {
            EvictedCopies::Half
        };
        let context = Arc::clone(self);
        let make = move || {
            let config = context.config.now();
            let store = context.publisher.store();
            store.make_room(config.data_dir.path(), all)
        };
        let has_room = tokio::task::spawn_blocking(make).await.unwrap_or(false);
        if has_room {
            let error = chain(error);
            info!(
                %repo,
                error,
                "The disk is full: evicted local copies of segments in the bucket; retrying {repo}"
            );
        }
        has_room
    }
}
