//! The repositories of the bucket as they were listed last, for those who needn't know the newest.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cachewfs_format::RepoName;
use tracing::debug;

use super::pointers::LATELY;
use crate::store::TierError;

/// What was listed last.
#[derive(Debug, Default)]
pub(super) struct KnownRepositories(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<(Instant, Vec<RepoName>)>,
    /// Somebody lists just now: others don't wait for that.
    is_listing: bool,
}

impl KnownRepositories {
    /// What was listed lately, or is by `list`; while that takes long, or the bucket lists nothing, what was
    /// listed last, else what is `here`.
    pub(super) fn get(
        &self,
        list: impl FnOnce() -> Result<Vec<RepoName>, TierError>,
        here: impl FnOnce() -> Result<Vec<RepoName>, TierError>,
    ) -> Result<Vec<RepoName>, TierError> {
        {
            let mut inner = self.lock();
            match &inner.last {
                Some((at, repos)) if inner.is_listing || at.elapsed() < LATELY => {
                    return Ok(repos.clone());
                }
                None if inner.is_listing => {
                    drop(inner);
                    return here();
                }
                _ => inner.is_listing = true,
            }
        }
        let begun = Instant::now();
        let listed = list();
        let mut inner = self.lock();
        inner.is_listing = false;
        match listed {
            Ok(repos) => {
                inner.last = Some((begun, repos.clone()));
                Ok(repos)
            }
            Err(error) if error.is_of_bucket() => {
                debug!(%error, "Repositories are listed without the bucket");
                let last = inner.last.as_ref().map(|(_, repos)| repos.clone());
                drop(inner);
                last.map_or_else(here, Ok)
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
