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
    pub(super) async fn get(
        &self,
        list: impl Future<Output = Result<Vec<RepoName>, TierError>>,
        here: impl Future<Output = Result<Vec<RepoName>, TierError>>,
    ) -> Result<Vec<RepoName>, TierError> {
        match self.begin() {
            Next::Known(repos) => return Ok(repos),
            Next::Here => return here.await,
            Next::List => {}
        }
        let listing = Listing(self);
        // Taken before the request, so that its duration counts as age.
        let begun = Instant::now();
        let listed = list.await;
        let last = {
            let mut inner = self.0.lock();
            if let Ok(repos) = &listed {
                inner.last = Some((begun, repos.clone()));
            }
            inner.last.as_ref().map(|(_, repos)| repos.clone())
        };
        drop(listing);
        match (listed, last) {
            (Err(error), last) if error.is_bucket_failure() => {
                debug!(%error, "Can't list the repositories of the bucket: using an older list");
                match last {
                    Some(last) => Ok(last),
                    None => here.await,
                }
            }
            (listed, _) => listed,
        }
    }

    /// Decides what a caller does, and notes if it lists the bucket.
    fn begin(&self) -> Next {
        let mut inner = self.0.lock();
        match &inner.last {
            Some((at, repos)) if inner.is_listing || at.elapsed() < LISTING_MAX_AGE => {
                Next::Known(repos.clone())
            }
            None if inner.is_listing => Next::Here,
            _ => {
                inner.is_listing = true;
                Next::List
            }
        }
    }
}

/// How a caller gets the repositories.
enum Next {
    Known(Vec<RepoName>),
    /// From the disk.
    Here,
    /// From the bucket.
    List,
}

/// A listing that is in progress. It ends also if its caller goes away.
struct Listing<'a>(&'a KnownRepositories);

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        self.0.0.lock().is_listing = false;
    }
}
