//! Loads a repository at its first lookup: from a daemon, or from disk if no daemon answers.
//!
//! ```text
//! nothing on disk        ask the daemon, and wait
//! something on disk      ask the daemon for half a second
//!   it answers           show what it has
//!   it fails, or is late show what is on disk; catch up behind that
//! ```
//!
//! The half second keeps a mount on a good network from showing an old state first: the daemon may
//! have deleted that snapshot, so its missing chunks could not be fetched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cachewfs_base::seconds_since_epoch;
use cachewfs_format::{ArchiveKind, RepoName, api};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::info;

use super::toc::{TAIL_LEN, kept_toc, load_toc};
use super::{Repositories, Repository};
use crate::cache::{KeptHeader, KeptSnapshot};
use crate::fetch::{FetchError, Tail, TailAnswer, current_tail};
use crate::traffic::Purpose;
use crate::view::{Generation, LoadError, View};

/// How long a lookup waits for the daemon before it shows the snapshot on disk.
const KEPT_PATIENCE: Duration = Duration::from_millis(500);

/// The state of a repository that an earlier mount showed.
struct KeptRepository {
    generation: Generation,
    tail: Tail,
    checked_at: u64,
}

impl Repositories {
    /// Loads `name` and starts to follow it.
    pub(super) async fn load(
        self: &Arc<Self>,
        name: &RepoName,
    ) -> Result<Arc<Repository>, LoadError> {
        let Some(kept) = self.load_kept(name).await else {
            // It may have been damaged or evicted. Later lookups must not try it again.
            self.drop_kept(name);
            let (generation, tail) = self
                .load_newest(name, None, Purpose::Demand)
                .await?
                .ok_or_else(|| {
                    // The request had no `If-None-Match`, so 304 is no valid answer.
                    let url = api::stable_path(name, ArchiveKind::Checkout);
                    FetchError::Status { url, status: 304 }
                })?;
            self.keep(name, &generation, &tail);
            let repository = repository(name, generation, seconds_since_epoch());
            self.start_following(&repository, FirstPoll::Later);
            return Ok(repository);
        };
        if !self.reachability.is_doubtful() {
            let etag = kept.generation.etag.clone();
            let newest = self.load_newest(name, Some(&etag), Purpose::Demand);
            match timeout(KEPT_PATIENCE, newest).await {
                Ok(Ok(Some((generation, tail)))) => {
                    let repository = repository(name, generation, seconds_since_epoch());
                    self.keep_new(&repository, tail);
                    self.start_following(&repository, FirstPoll::Later);
                    return Ok(repository);
                }
                Ok(Ok(None)) => {
                    self.keep(name, &kept.generation, &kept.tail);
                    let repository = repository(name, kept.generation, seconds_since_epoch());
                    self.start_following(&repository, FirstPoll::Later);
                    return Ok(repository);
                }
                // The daemon answers that there is nothing to show.
                Ok(Err(LoadError::Fetch(error)))
                    if matches!(*error, FetchError::Refused { .. }) =>
                {
                    return Err(LoadError::Fetch(error));
                }
                // Noted in `reachability`, or reported by the poll below.
                Ok(Err(_)) => {}
                Err(_) => self.reachability.note_slow(),
            }
        }
        let repository = repository(name, kept.generation, kept.checked_at);
        self.start_following(&repository, FirstPoll::Now);
        Ok(repository)
    }

    /// Loads the newest snapshot of `name` from a daemon. Returns `None` if its `ETag` is `etag`.
    /// Returns also the part of the tail that [`Repositories::keep`] keeps.
    pub(super) async fn load_newest(
        &self,
        name: &RepoName,
        etag: Option<&str>,
        purpose: Purpose,
    ) -> Result<Option<(Generation, Tail)>, LoadError> {
        let source = self.source();
        let request = current_tail(source, name, TAIL_LEN, etag);
        let TailAnswer::Tail(tail) = self.reachability.observe(request).await? else {
            return Ok(None);
        };
        if etag == Some(&*tail.etag) {
            return Ok(None);
        }
        let ask = |len| current_tail(source, name, len, None).boxed();
        let (tail, toc) = load_toc(name, tail, ask).await?;
        let loaded = Generation::load(name, (tail.clone(), toc), &self.segments, purpose);
        Ok(Some((loaded.await?, tail)))
    }
}

fn repository(name: &RepoName, generation: Generation, checked_at: u64) -> Arc<Repository> {
    info!(repo = %name, snapshot = %generation.snapshot, "Showing {name}");
    let objects = Arc::new(generation.objects.clone());
    let view = View {
        generation: Arc::new(generation),
        objects,
    };
    let repository = Repository::new(name, view);
    repository.checked_at.store(checked_at, Ordering::Relaxed);
    Arc::new(repository)
}

/// When a repository that was just loaded is polled first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPoll {
    /// At once: it was loaded from disk.
    Now,
    /// After `poll_interval`: a daemon has just said that it is the newest.
    Later,
}

impl Repositories {
    /// Loads the state of `name` that an earlier mount kept on disk. Returns `None` if that isn't
    /// there as a whole.
    async fn load_kept(&self, name: &RepoName) -> Option<KeptRepository> {
        let kept = self
            .kept
            .as_ref()
            .filter(|_| self.is_known(name.as_str()))?;
        let KeptSnapshot { header, tail } = kept.read(name)?;
        let tail = Tail {
            bytes: tail,
            archive_len: header.archive_len,
            path: api::immutable_path(name, header.kind, header.snapshot).into(),
            snapshot: header.snapshot,
            etag: header.etag,
            notice: header.notice,
        };
        let toc = kept_toc(name, &tail)?;
        let loaded = Generation::load_cached(name, (tail.clone(), toc), &self.segments);
        let generation = loaded.await?;
        Some(KeptRepository {
            generation,
            tail,
            checked_at: header.checked_at,
        })
    }

    /// Keeps on disk what the next mount needs to show `generation` without a daemon.
    pub(super) fn keep(&self, name: &RepoName, generation: &Generation, tail: &Tail) {
        let Some(kept) = &self.kept else { return };
        kept.write(&KeptSnapshot {
            header: KeptHeader {
                repo: name.clone(),
                snapshot: generation.snapshot,
                kind: generation.toc.kind,
                etag: generation.etag.clone(),
                archive_len: generation.archive_len,
                notice: generation.notice.clone(),
                checked_at: seconds_since_epoch(),
                needs: generation.needed_segments(),
            },
            tail: tail.bytes.clone(),
        });
    }

    /// Removes the kept snapshot of `name` from disk.
    pub(super) fn drop_kept(&self, name: &RepoName) {
        if let Some(kept) = self.kept.as_ref().filter(|_| self.is_known(name.as_str())) {
            kept.remove(name);
        }
        if self.loaded(name).is_none() {
            self.slots.note_unknown(name);
        }
    }

    /// Keeps the list of hosts on disk.
    pub(super) fn keep_hosts(&self, hosts: &[String]) {
        if let Some(kept) = &self.kept {
            kept.write_hosts(hosts);
        }
    }
}
