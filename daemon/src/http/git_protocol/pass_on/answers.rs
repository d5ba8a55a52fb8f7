//! [`SharedAnswers`]: the answers of upstream that are being fetched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::Digest;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::head::UpstreamHead;
use super::spool::Spool;
use crate::http::error::GitHttpError;

/// The answers that are being fetched, by the digest of the request.
#[derive(Debug, Default)]
pub(in crate::http::git_protocol) struct SharedAnswers(
    pub(super) Mutex<HashMap<Digest, Arc<SharedAnswer>>>,
);

/// One answer, which all identical requests share.
#[derive(Debug)]
pub(super) struct SharedAnswer {
    pub(super) began: Instant,
    pub(super) head: watch::Sender<Option<Result<UpstreamHead, GitHttpError>>>,
    pub(super) spool: Arc<Spool>,
}

impl SharedAnswers {
    /// Removes the entry, unless a later request has replaced this one because it was too old to be
    /// joined.
    pub(super) fn forget(&self, key: &Digest, shared: &Arc<SharedAnswer>) {
        let mut answers = self.0.lock();
        if answers
            .get(key)
            .is_some_and(|present| Arc::ptr_eq(present, shared))
        {
            answers.remove(key);
        }
    }
}
