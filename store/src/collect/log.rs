//! Log messages about collections.

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use tracing::{info, warn};

use super::Collected;
use crate::StoreError;

/// Logs the work of a collection, if it did any.
pub fn log_collected(repo: &RepoName, collected: &Collected) {
    let (snapshots, segments) = (collected.snapshots.len(), collected.segments);
    if snapshots > 0 || segments > 0 {
        let bytes = collected.bytes;
        info!(
            %repo, snapshots, segments, bytes,
            "Garbage collection deleted snapshots or segments of {repo}"
        );
    }
    if let Some(first) = collected.missing.first() {
        let missing = collected.missing.len();
        warn!(
            %repo, missing, %first,
            "Segments that snapshots of {repo} name are missing from the store"
        );
    }
}

/// Logs why a collection failed. The publish or the loop that called it goes on.
pub fn log_failed_collection(repo: &RepoName, error: &StoreError) {
    let error = chain(error);
    warn!(%repo, error, "Garbage collection of {repo} failed");
}
