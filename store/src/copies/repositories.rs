//! [`KnownRepositories`]: the last listing of the bucket's repositories, for callers that don't
//! need the newest.

use std::time::Instant;

use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tracing::debug;

use super::pointers::LISTING_MAX_AGE;
use crate::TierError;

/// The last listing of the repositories.
#[derive(Debug, Default)]
pub(super) struct KnownRepositories(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<(Instant, Vec<RepoName>)>,
    /// Whether a caller is listing the bucket. Others don't wait for it.
    is_listing: bool,
}

impl KnownRepositories {
    /// Returns the last listing if it is recent, or lists the bucket with `list`.
    ///
    /// If another caller is listing, or the bucket fails, returns the last listing, or the
    /// repositories that are `here` on disk.
    pub(super) fn get(
        &self,
        list: impl FnOnce() -> Result<Vec<RepoName>, TierError>,
        here: impl FnOnce() -> Result<Vec<RepoName>, TierError>,
    ) -> Result<Vec<RepoName>, TierError> {
        {
            let mut inner = self.0.lock();
            match &inner.last {
                Some((at, repos)) if inner.is_listing || at.elapsed() < LISTING_MAX_AGE => {
                    return Ok(repos.clone());
                }
                None if inner.is_listing => {
                    drop(inner);
                    return here();
                }
                _ => inner.is_listing = true,
            }
        }
        // Taken before the request, so that its duration counts as age.
        let begun = Instant::now();
        let listed = list();
        let mut inner = self.0.lock();
        inner.is_listing = false;
        match listed {
            Ok(repos) => {
                inner.last = Some((begun, repos.clone()));
                Ok(repos)
            }
            Err(error) if error.is_bucket_failure() => {
                debug!(%error, "Can't list the repositories of the bucket: using an older list");
                let last = inner.last.as_ref().map(|(_, repos)| repos.clone());
                drop(inner);
                last.map_or_else(here, Ok)
            }
            Err(error) => Err(error),
        }
    }
}
