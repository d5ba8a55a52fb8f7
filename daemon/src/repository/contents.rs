//! Looks up refs and objects in a mirror, after an update if the mirror lacks some.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::ObjectId;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::checks::Freshness;
use super::context::Context;
use super::handle::Repository;
use super::{MirrorState, RepositoryError};
use crate::mirror::{
    Git, GitError, RefName, first_refs, mirrored_namespaces, missing_objects, resolve_refs,
};

/// The refs and objects that a request needs from a mirror.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedContents {
    /// The refs, with the objects that they should name, if that matters.
    pub(crate) refs: HashMap<RefName, Option<ObjectId>>,
    pub(crate) objects: Vec<ObjectId>,
}

/// The part of [`WantedContents`] that a mirror has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// The objects that the refs name, without refs that don't exist.
    pub(crate) refs: HashMap<RefName, ObjectId>,
    pub(crate) missing: HashSet<ObjectId>,
}

impl Contents {
    fn has_all(&self, wanted: &WantedContents) -> bool {
        let has_ref = |(name, expected): (&RefName, &Option<ObjectId>)| {
            let target = self.refs.get(name);
            target.is_some_and(|target| expected.is_none_or(|expected| expected == *target))
        };
        self.missing.is_empty() && wanted.refs.iter().all(has_ref)
    }
}

/// At most this many requests read mirrors at once, each with a git process. They take
/// milliseconds, so more at once would only slow each other down.
const MAX_QUERIES: usize = 16;

/// The reader of mirrors, for requests of clients.
#[derive(Debug)]
pub(crate) struct MirrorReader {
    context: Arc<Context>,
    permits: Semaphore,
}

impl MirrorReader {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            permits: Semaphore::new(MAX_QUERIES),
        })
    }

    /// Looks up `wanted` in the mirror. If something is missing, checks upstream and looks again.
    /// Also returns whether upstream was checked. The mirror must be ready.
    pub(crate) async fn ensure(
        &self,
        repository: &Arc<Repository>,
        wanted: WantedContents,
    ) -> Result<(Contents, bool), RepositoryError> {
        let wanted = Arc::new(wanted);
        let contents = self.look_for(repository, &wanted).await?;
        if contents.has_all(&wanted) {
            return Ok((contents, false));
        }
        // The check must begin after this call. An earlier one may have missed the push that the
        // client knows of.
        self.check_upstream(repository).await?;
        Ok((self.look_for(repository, &wanted).await?, true))
    }

    /// Waits until the mirror is ready, at most as long as an update may take. Returns whether it
    /// had to wait.
    pub(crate) async fn wait_for_mirror(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<bool, RepositoryError> {
        let status = repository.status();
        if status.state == MirrorState::Ready {
            return Ok(false);
        }
        if let Some(failure) = status.failure {
            if failure.blocks_update() {
                return Err(failure.error);
            }
            // The backoff is over, so it may be tried again, but not once for each request:
            // `fresh_within` shares one try among all requests of the interval.
            let interval = self.context.config.now().ref_check_interval;
            if repository.fresh_within(interval).await? == Freshness::Fresh {
                return Ok(true);
            }
        }
        // A failure counts only if its run ended after this call. The failure in `status` is older.
        let is_decided = |now: &super::Status| {
            now.state == MirrorState::Ready || (now.failure.is_some() && now.runs > status.runs)
        };
        let decided = timeout(self.longest_update(), repository.status_when(is_decided)).await;
        let decided = decided.map_err(|_| RepositoryError::Busy)?;
        match decided.failure {
            Some(failure) if decided.state != MirrorState::Ready => Err(failure.error),
            _ => Ok(true),
        }
    }

    /// Waits for a check of upstream that begins after this call, and for the update that follows
    /// if upstream has changed.
    pub(super) async fn check_upstream(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<(), RepositoryError> {
        if repository.fresh_within(Duration::ZERO).await? == Freshness::Behind {
            let update = timeout(self.longest_update(), repository.update());
            update.await.map_err(|_| RepositoryError::Busy)??;
        }
        Ok(())
    }

    /// Returns how long a request waits for a running update.
    fn longest_update(&self) -> Duration {
        let limits = &self.context.config.now().git;
        limits.fetch_timeout + limits.ls_remote_timeout
    }

    /// Returns the first `max` refs that the mirror shows, and whether there are more. The mirror
    /// must be ready.
    pub(crate) async fn refs(
        &self,
        repository: &Arc<Repository>,
        max: usize,
    ) -> Result<(BTreeMap<String, ObjectId>, bool), RepositoryError> {
        let config = self.context.config.now();
        let look = move |git: &Git, mirror: &Path| {
            first_refs(
                git,
                mirror,
                mirrored_namespaces(&config.mirrors.namespaces),
                max,
            )
        };
        self.query(repository, look).await
    }

    async fn look_for(
        &self,
        repository: &Arc<Repository>,
        wanted: &Arc<WantedContents>,
    ) -> Result<Contents, RepositoryError> {
        let wanted = Arc::clone(wanted);
        let look = move |git: &Git, mirror: &Path| {
            let names: Vec<_> = wanted.refs.keys().cloned().collect();
            Ok(Contents {
                refs: resolve_refs(git, mirror, &names)?,
                missing: missing_objects(git, mirror, &wanted.objects)?,
            })
        };
        self.query(repository, look).await
    }

    /// Runs `look` on the mirror, as soon as a permit is free.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        repository: &Arc<Repository>,
        look: impl FnOnce(&Git, &Path) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let turn = self.permits.acquire().await;
        let _turn = turn.map_err(|_| RepositoryError::Stopping)?;
        let (git, repository) = (self.context.git.clone(), Arc::clone(repository));
        let found = tokio::task::spawn_blocking(move || look(&git, &repository.mirror)).await;
        let found = found.map_err(|_| RepositoryError::Stopping)?;
        found.map_err(|error| RepositoryError::Mirror(Arc::new(error.into())))
    }
}
