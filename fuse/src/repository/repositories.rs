//! The repositories of a mount by name: resolves a name at its first lookup and remembers it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cachewfs_format::{ArchiveKind, RepoName};
use tokio::sync::OnceCell;
use tokio::time::sleep;
use tracing::info;

use super::{RepoError, Repository, View};
use crate::fetch::{FetchError, TailAnswer, current_tail};
use crate::invalidate::Invalidator;
use crate::options::MountOptions;
use crate::segment::Segments;
use crate::traffic::Purpose;
use crate::view::{Generation, LoadError};

/// How long a failed lookup is remembered. In this time, a name that doesn't exist is not asked for
/// again, and reports show the failure.
const FAILURE_TTL: Duration = Duration::from_secs(30);
/// How long the list of hosts is used before it is fetched again.
const HOSTS_TTL: Duration = Duration::from_secs(30);
/// At most about this many names are remembered before failed ones are forgotten. Any user may look
/// up any number of names.
const MAX_FAILED_NAMES: usize = 4096;
/// How long the mount waits before it asks again for a snapshot that is being prepared.
const NOT_READY_INTERVAL: Duration = Duration::from_secs(1);

/// The repositories of a mount.
#[derive(Debug)]
pub(crate) struct Repositories {
    pub(crate) options: MountOptions,
    pub(crate) segments: Arc<Segments>,
    /// The channel to the kernel's caches; set once the session runs.
    pub(crate) invalidator: OnceLock<Invalidator>,
    /// The lock that a switch of a view holds shared, and the hand-over of the mount alone.
    pub(crate) switching: Arc<tokio::sync::RwLock<()>>,
    slots: Mutex<BTreeMap<RepoName, Arc<Slot>>>,
    hosts: Mutex<Option<(Instant, Arc<Vec<String>>)>>,
}

/// The state of a repository name that was looked up: loaded, failed, or being resolved.
#[derive(Debug, Default)]
struct Slot {
    repository: OnceCell<Arc<Repository>>,
    failure: Mutex<Option<(Instant, RepoError)>>,
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
        Self {
            options,
            segments,
            invalidator: OnceLock::new(),
            switching: Arc::default(),
            slots: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// Returns the repositories that are loaded, sorted by name.
    pub(crate) fn resolved(&self) -> Vec<Arc<Repository>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .values()
            .filter_map(|slot| slot.repository.get().cloned())
            .collect()
    }

    /// Returns the repository `name` if it is loaded.
    pub(super) fn known(&self, name: &RepoName) -> Option<Arc<Repository>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(name)?.repository.get().cloned()
    }

    /// Shows a repository that was loaded otherwise than by a lookup.
    pub(super) fn insert(&self, repository: &Arc<Repository>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(repository.name.clone()).or_default();
        // Fails if a lookup was faster. This mount serves no lookups yet.
        slot.repository.set(Arc::clone(repository)).ok();
    }

    /// Returns the directory from which clones of `name` borrow.
    pub(super) fn objects_directory_of(&self, name: &RepoName) -> PathBuf {
        self.options
            .mount_point
            .join(".objects")
            .join(name.as_str())
    }

    /// Returns the names whose last lookup failed recently, each with the error.
    pub(super) fn failed(&self) -> Vec<(RepoName, String)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .filter(|(_, slot)| slot.repository.get().is_none())
            .filter_map(|(name, slot)| Some((name.clone(), slot.recent_failure()?.chain())))
            .collect()
    }

    /// Returns the error of the last lookup of `name`, or `None` if it did not fail recently.
    pub(crate) fn failure(&self, name: &RepoName) -> Option<String> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Some(slots.get(name)?.recent_failure()?.chain())
    }

    /// Forgets that a lookup of `name` failed, so that the next lookup asks the daemon.
    pub(crate) fn forget_failure(&self, name: &RepoName) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            slot.note(None);
        }
    }

    /// Returns whether the repository `name` is loaded.
    pub(crate) fn is_resolved(&self, name: &RepoName) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .get(name)
            .is_some_and(|slot| slot.repository.get().is_some())
    }

    /// Returns the path segments directly below `prefix` in the names of loaded repositories.
    pub(crate) fn names_below(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .resolved()
            .iter()
            .filter_map(|repository| {
                let rest = repository.name.as_str().strip_prefix(prefix)?;
                let rest = if prefix.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('/')?
                };
                rest.split('/').next().map(str::to_owned)
            })
            .collect();
        names.dedup();
        names
    }

    /// Returns the hosts that the daemon mirrors from.
    pub(crate) async fn hosts(&self) -> Result<Arc<Vec<String>>, FetchError> {
        let known = self
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((asked_at, hosts)) = &known
            && asked_at.elapsed() < HOSTS_TTL
        {
            return Ok(Arc::clone(hosts));
        }
        match self.segments.backend().source.hosts().await {
            Ok(hosts) => {
                let hosts = Arc::new(hosts);
                let now = Some((Instant::now(), Arc::clone(&hosts)));
                *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = now;
                Ok(hosts)
            }
            // If the daemon is unreachable, an expired list is better than none.
            Err(error) => known.map(|(_, hosts)| hosts).ok_or(error),
        }
    }

    /// Resolves `name` to a repository, or to a directory of names if no repository has it.
    pub(crate) async fn find(self: &Arc<Self>, name: &RepoName) -> Result<ResolvedName, RepoError> {
        match self.resolve(name).await {
            Ok(repository) => Ok(ResolvedName::Repository(repository)),
            Err(error @ RepoError::NotFound { .. }) => {
                // The daemon lists no organisations. Any first segment below a host may be one, and
                // so may any prefix of a name that was resolved.
                let is_first = !name.path().contains('/');
                let has_names = !self.names_below(name.as_str()).is_empty();
                if is_first || has_names {
                    Ok(ResolvedName::Directory)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the repository `name` from memory, or asks the daemon. Waits while the daemon
    /// prepares the first snapshot; the caller sets the deadline by dropping the future.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        name: &RepoName,
    ) -> Result<Arc<Repository>, RepoError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() > MAX_FAILED_NAMES && !slots.contains_key(name) {
                self.forget_failed(&mut slots);
            }
            Arc::clone(slots.entry(name.clone()).or_default())
        };
        if let Some(repository) = slot.repository.get() {
            return Ok(Arc::clone(repository));
        }
        // Only "not found" is answered from memory. Other failures may end at any moment, so they
        // are tried again.
        if let Some(error @ RepoError::NotFound { .. }) = slot.recent_failure() {
            return Err(error);
        }
        // Concurrent lookups of a name share one load.
        let load = || self.load_until_ready(name, &slot);
        let repository = slot.repository.get_or_try_init(load).await?;
        Ok(Arc::clone(repository))
    }

    /// Forgets the names that are not loaded and not being looked up.
    fn forget_failed(&self, slots: &mut BTreeMap<RepoName, Arc<Slot>>) {
        // A lookup in progress holds a second reference to its slot.
        slots.retain(|_, slot| slot.repository.get().is_some() || Arc::strong_count(slot) > 1);
        let traffic = &self.segments.backend().traffic;
        traffic.retain(|name| slots.contains_key(name));
    }

    /// Loads `name`, and asks again as long as the daemon is preparing its first snapshot.
    async fn load_until_ready(
        self: &Arc<Self>,
        name: &RepoName,
        slot: &Slot,
    ) -> Result<Arc<Repository>, RepoError> {
        loop {
            let error = match self.load(name).await {
                Ok(repository) => {
                    slot.note(None);
                    let repository = Arc::new(repository);
                    self.start_following(&repository);
                    return Ok(repository);
                }
                Err(error) => RepoError::from_load(name.as_str(), error),
            };
            // Noted also while it waits: `status` then shows why the lookup takes so long.
            slot.note(Some(error.clone()));
            if !matches!(error, RepoError::NotReady { .. }) {
                return Err(error);
            }
            sleep(NOT_READY_INTERVAL).await;
        }
    }

    /// Loads the newest snapshot of `name`.
    async fn load(&self, name: &RepoName) -> Result<Repository, LoadError> {
        let source = &self.segments.backend().source;
        let answer = current_tail(&**source, name, crate::view::TAIL_LEN, None).await?;
        let TailAnswer::Tail(tail) = answer else {
            // The request had no `If-None-Match`, so 304 is no valid answer.
            let url = cachewfs_format::api::stable_path(name, ArchiveKind::Checkout);
            return Err(FetchError::Status { url, status: 304 }.into());
        };
        let objects_directory = self.objects_directory_of(name);
        let objects = objects_directory.join("objects");
        let generation =
            Generation::load(name, tail, &self.segments, &objects, Purpose::Demand).await?;
        info!(repo = %name, snapshot = %generation.snapshot, "Showing {name}");
        let objects = Arc::new(generation.objects.clone());
        let view = View {
            generation: Arc::new(generation),
            objects,
        };
        Ok(Repository {
            name: name.clone(),
            objects_directory,
            view: RwLock::new(view),
            catch_ups: AtomicU64::new(0),
            checked_at: AtomicU64::new(super::report::now()),
            last_error: Mutex::default(),
            catching_up: tokio::sync::Mutex::default(),
            superseded: Mutex::default(),
        })
    }
}

impl Slot {
    /// Notes the error of the last lookup, or that it succeeded.
    fn note(&self, error: Option<RepoError>) {
        let failure = error.map(|error| (Instant::now(), error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn recent_failure(&self) -> Option<RepoError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = failure.as_ref()?;
        (at.elapsed() < FAILURE_TTL).then(|| error.clone())
    }
}
