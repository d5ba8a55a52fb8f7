//! The repositories of a mount by name: resolves a name at its first lookup and remembers it.
//!
//! Most lookups are answered without a request, in this order:
//!
//! ```text
//! loaded, or kept on disk               ─► the repository
//! beginning of such a name              ─► a directory
//! can't be a repository on this host    ─► a directory, or nothing
//! was a directory before                ─► a directory; every 30 s checked in the background
//! the daemon answered less than 30 s ago ─► the same answer
//! the daemons just failed to answer     ─► an error
//! anything else                         ─► ask the daemon
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::hosts::Hosts;
use super::names::{self, NameKind};
use super::reachability::Reachability;
use super::slots::{Slot, Slots};
use super::{RepoError, Repository};
use crate::cache::{Cache, KeptSnapshots};
use crate::callers::Callers;
use crate::failed_reads::FailedReads;
use crate::fetch::ArchiveSource;
use crate::invalidate::Invalidator;
use crate::options::MountOptions;
use crate::passthrough::Passthrough;
use crate::segment::Segments;
use crate::tasks::Tasks;
use crate::traffic::Traffic;

/// How long the mount waits before it asks for the first time again for a snapshot that is being
/// prepared. Each later pause is half as long again, so that the answer is never late by more than
/// a third of what the work took.
const FIRST_NOT_READY_INTERVAL: Duration = Duration::from_millis(20);
/// The longest of these pauses.
const LONGEST_NOT_READY_INTERVAL: Duration = Duration::from_secs(1);

/// The repositories of a mount.
#[derive(Debug)]
pub(crate) struct Repositories {
    pub(crate) options: MountOptions,
    pub(crate) segments: Arc<Segments>,
    /// The channel to the kernel's caches; set once the session runs.
    pub(crate) invalidator: OnceLock<Invalidator>,
    /// Whether the daemons answer.
    pub(crate) reachability: Reachability,
    /// The calls that wait for an answer.
    pub(crate) callers: Arc<Callers>,
    /// Whether the kernel reads files of the cache itself.
    pub(crate) passthrough: Passthrough,
    /// The files whose last read failed.
    pub(crate) failed_reads: FailedReads,
    pub(super) slots: Slots,
    pub(super) hosts: Hosts,
    /// The snapshots that earlier mounts showed, or `None` if nothing is kept.
    pub(super) kept: Option<KeptSnapshots>,
    /// The lock that a switch of a view holds shared, and the hand-over of the mount alone.
    pub(crate) switching: Arc<tokio::sync::RwLock<()>>,
    /// The signal that the mount shows more or something else, or that a clone was registered.
    pub(crate) view_changed: Notify,
}

/// The result of resolving a name below a host.
#[derive(Clone, Debug)]
pub(crate) enum ResolvedName {
    /// The name of a repository.
    Repository(Arc<Repository>),
    /// The beginning of repository names, such as an organisation.
    Directory,
}

impl Repositories {
    pub(crate) fn new(options: MountOptions, segments: Arc<Segments>) -> Self {
        // With an embedded daemon there is always one that answers, and its URL is new each time.
        let is_kept = options.secret_token.is_none();
        let kept = is_kept.then(|| segments.backend().cache.kept_snapshots(&identity(&options)));
        let slots = Slots::default();
        for name in kept.iter().flat_map(KeptSnapshots::names) {
            slots.note_known(&name);
        }
        Self {
            invalidator: OnceLock::new(),
            reachability: Reachability::new(options.lookup_timeout),
            callers: Arc::default(),
            passthrough: Passthrough::default(),
            failed_reads: FailedReads::default(),
            slots,
            hosts: Hosts::new(kept.as_ref().and_then(KeptSnapshots::hosts)),
            kept,
            options,
            segments,
            switching: Arc::default(),
            view_changed: Notify::new(),
        }
    }

    pub(crate) fn source(&self) -> &dyn ArchiveSource {
        &*self.segments.backend().source
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.segments.backend().cache
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.segments.backend().traffic
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.segments.backend().tasks
    }

    /// Starts the tasks that find out whether the daemons answer.
    pub(crate) fn start(self: &Arc<Self>) {
        self.tasks().spawn(Arc::clone(self).watch_outages());
        self.start_asking_for_hosts();
    }

    /// Returns the repositories that are loaded, sorted by name.
    pub(crate) fn resolved(&self) -> Vec<Arc<Repository>> {
        self.slots.all_loaded()
    }

    /// Returns the repositories whose last lookup failed recently, each with the error.
    pub(super) fn failed(&self) -> Vec<(RepoName, String)> {
        let failed = self.slots.failed().into_iter();
        let failed = failed.filter(|(name, error)| {
            let is_repository = match error {
                // A program or a person walked through, and nothing is there.
                RepoError::NotFound {
                    is_denied: false, ..
                } => false,
                // The name may be an organisation. The outage itself is reported for the mount.
                RepoError::NotFound { .. } => !names::is_first(name),
                error if error.is_outage() => !names::is_first(name),
                _ => true,
            };
            // The beginning of a known name is a directory, and nothing about it failed.
            is_repository && !self.has_names_below(name.as_str())
        });
        failed.map(|(name, error)| (name, chain(&error))).collect()
    }

    /// Returns the error of the last lookup of `name`, or `None` if it did not fail recently.
    pub(crate) fn failure(&self, name: &RepoName) -> Option<String> {
        self.slots.failure(name).map(|error| chain(&error))
    }

    /// Forgets that a lookup of `name` failed, so that the next lookup asks the daemon.
    pub(crate) fn forget_failure(&self, name: &RepoName) {
        self.slots.forget_failure(name);
    }

    /// Returns whether the repository `name` is loaded.
    pub(crate) fn is_resolved(&self, name: &RepoName) -> bool {
        self.loaded(name).is_some()
    }

    /// Returns the repository `name` if it is loaded.
    pub(crate) fn loaded(&self, name: &RepoName) -> Option<Arc<Repository>> {
        self.slots.loaded(name)
    }

    /// Makes the kernel look `name` up again, which may have been a directory until now.
    pub(crate) async fn look_up_again(&self, name: &RepoName) {
        let Some(invalidator) = self.invalidator.get().cloned() else {
            return;
        };
        let name = name.clone();
        // It waits for lookups in the same directory.
        let told = tokio::task::spawn_blocking(move || invalidator.drop_repository(&name));
        told.await.ok();
    }

    /// Returns whether `name` is a repository that is loaded or kept on disk.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.slots.is_known(name)
    }

    /// Returns whether the name of a known repository begins with `prefix` and a slash.
    pub(crate) fn has_names_below(&self, prefix: &str) -> bool {
        self.slots.has_names_below(prefix)
    }

    /// Returns the path segments directly below `prefix` in the names of known repositories.
    pub(crate) fn names_below(&self, prefix: &str) -> Vec<String> {
        self.slots.names_below(prefix)
    }

    /// Resolves `name` to a repository, or to a directory of names if no repository has it. Asks
    /// the daemon only if the names in memory don't tell.
    pub(crate) async fn find(self: &Arc<Self>, name: &RepoName) -> Result<ResolvedName, RepoError> {
        if !self.is_known(name.as_str()) {
            if self.has_names_below(name.as_str()) {
                return Ok(ResolvedName::Directory);
            }
            match names::kind_of(name) {
                NameKind::Directory => return Ok(ResolvedName::Directory),
                NameKind::Nothing => return Err(never_a_repository(name)),
                NameKind::Unknown => {}
            }
            if let Some(answer) = self.find_in_memory(name) {
                return answer;
            }
        }
        match self.resolve(name).await {
            Ok(repository) => Ok(ResolvedName::Repository(repository)),
            Err(RepoError::NotFound { .. }) if names::may_have_names(name) => {
                self.slot(name).note_directory();
                Ok(ResolvedName::Directory)
            }
            Err(error) => Err(error),
        }
    }

    /// Answers a lookup of `name` from what earlier lookups found. Returns `None` if the daemon
    /// should be asked.
    fn find_in_memory(
        self: &Arc<Self>,
        name: &RepoName,
    ) -> Option<Result<ResolvedName, RepoError>> {
        let slot = self.slot(name);
        if slot.is_directory() {
            // A repository of this name may have been made. A lookup must not wait to learn that.
            if self.reachability.recent_outage().is_none() && slot.take_check() {
                self.start_resolving(name);
            }
            return Some(Ok(ResolvedName::Directory));
        }
        slot.recent_answer()
            .or_else(|| self.reachability.recent_outage())
            .map(Err)
    }

    pub(super) fn slot(&self, name: &RepoName) -> Arc<Slot> {
        self.slots
            .slot(name, |is_kept| self.traffic().retain(is_kept))
    }

    fn start_resolving(self: &Arc<Self>, name: &RepoName) {
        let (repositories, name) = (Arc::clone(self), name.clone());
        let longest = self.options.read_timeout;
        self.tasks().spawn_until_end(async move {
            // The outcome is in the slot of the name.
            drop(timeout(longest, repositories.resolve(&name)).await);
        });
    }

    /// Returns the repository `name` from memory or from disk, or asks the daemon. Waits while the
    /// daemon prepares the first snapshot; the caller sets the deadline by dropping the future.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        name: &RepoName,
    ) -> Result<Arc<Repository>, RepoError> {
        let slot = self.slot(name);
        if let Some(repository) = slot.repository.get() {
            return Ok(Arc::clone(repository));
        }
        // Concurrent lookups of a name share one load.
        let load = || async {
            // Another lookup may just have asked.
            if let Some(error) = slot.recent_answer() {
                return Err(error);
            }
            self.load_until_ready(name, &slot).await
        };
        let repository = slot.repository.get_or_try_init(load).await?;
        self.view_changed.notify_one();
        Ok(Arc::clone(repository))
    }

    /// Loads `name`, and asks again as long as the daemon is preparing its first snapshot.
    async fn load_until_ready(
        self: &Arc<Self>,
        name: &RepoName,
        slot: &Slot,
    ) -> Result<Arc<Repository>, RepoError> {
        let mut pause = FIRST_NOT_READY_INTERVAL;
        loop {
            let error = match self.load(name).await {
                Ok(repository) => {
                    slot.note(None);
                    self.slots.note_known(name);
                    return Ok(repository);
                }
                Err(error) => RepoError::from_load(name.as_str(), error),
            };
            if matches!(error, RepoError::NotFound { .. }) {
                self.drop_kept(name);
            }
            // Noted also while it waits: `status` then shows why the lookup takes so long.
            slot.note(Some(error.clone()));
            if !matches!(error, RepoError::NotReady { .. }) {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_NOT_READY_INTERVAL);
        }
    }
}

/// Returns a text that differs for mounts that may see other repositories under the same names.
fn identity(options: &MountOptions) -> String {
    let token = options.token_file.as_deref().unwrap_or("".as_ref());
    let mut daemons: Vec<_> = options
        .daemons
        .iter()
        .map(|url| url.trim_end_matches('/'))
        .collect();
    daemons.sort_unstable();
    format!("{}\n{}", daemons.join("\n"), token.display())
}

fn never_a_repository(name: &RepoName) -> RepoError {
    RepoError::NotFound {
        name: name.to_string(),
        message: "no repository of this host can have this name".to_owned(),
        is_denied: false,
    }
}
