//! All repositories of a mount, by name.

use std::collections::BTreeMap;
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

/// How long an answer "there is no such repository" is believed.
const ABSENT_FOR: Duration = Duration::from_secs(30);
/// How long the list of hosts is believed.
const HOSTS_FOR: Duration = Duration::from_secs(30);
/// At most so many names are remembered that were looked up in vain: each user may look up any name.
const MAX_FAILED_NAMES: usize = 4096;
/// How long to wait before asking again for a snapshot that is being prepared, at most.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);

/// The repositories of a mount.
#[derive(Debug)]
pub(crate) struct Repositories {
    pub(crate) options: MountOptions,
    pub(crate) segments: Arc<Segments>,
    /// Tells the kernel what changed; set when the session runs.
    pub(crate) invalidator: OnceLock<Invalidator>,
    slots: Mutex<BTreeMap<RepoName, Arc<Slot>>>,
    hosts: Mutex<Option<(Instant, Arc<Vec<String>>)>>,
}

/// A name that somebody looked up.
#[derive(Debug, Default)]
struct Slot {
    repository: OnceCell<Arc<Repository>>,
    failure: Mutex<Option<(Instant, RepoError)>>,
}

/// What a name below a host is.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// A repository.
    Repository(Arc<Repository>),
    /// A part of the names of repositories.
    Directory,
}

impl Repositories {
    /// No repositories yet.
    pub(crate) fn new(options: MountOptions, segments: Arc<Segments>) -> Self {
        Self {
            options,
            segments,
            invalidator: OnceLock::new(),
            slots: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// The repositories that can be read, in order of their names.
    pub(crate) fn resolved(&self) -> Vec<Arc<Repository>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .values()
            .filter_map(|slot| slot.repository.get().cloned())
            .collect()
    }

    /// The names that were looked up in vain, with the reason.
    pub(super) fn failed(&self) -> Vec<(RepoName, String)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .filter(|(_, slot)| slot.repository.get().is_none())
            .filter_map(|(name, slot)| Some((name.clone(), slot.recent_failure()?.chain())))
            .collect()
    }

    /// Why the last lookup of `name` failed, if one did.
    pub(crate) fn failure(&self, name: &RepoName) -> Option<String> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Some(slots.get(name)?.recent_failure()?.chain())
    }

    /// Forgets that a lookup of `name` failed: the next one asks the daemon.
    pub(crate) fn forget_failure(&self, name: &RepoName) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            slot.note(None);
        }
    }

    /// Returns whether `name` can be read.
    pub(crate) fn is_resolved(&self, name: &RepoName) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .get(name)
            .is_some_and(|slot| slot.repository.get().is_some())
    }

    /// The names directly below `prefix`, of what was resolved so far.
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

    /// The hosts that the daemon mirrors from.
    pub(crate) async fn hosts(&self) -> Result<Arc<Vec<String>>, FetchError> {
        let known = self
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((asked_at, hosts)) = &known
            && asked_at.elapsed() < HOSTS_FOR
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
            // An old list is better than none while the daemon is away.
            Err(error) => known.map(|(_, hosts)| hosts).ok_or(error),
        }
    }

    /// What `name` is: resolves the repository, or finds that it is only a part of names.
    pub(crate) async fn find(self: &Arc<Self>, name: &RepoName) -> Result<Found, RepoError> {
        match self.resolve(name).await {
            Ok(repository) => Ok(Found::Repository(repository)),
            Err(error @ RepoError::NotFound { .. }) => {
                // An organisation: the first segment, or what known names have before them.
                let is_first = !name.path().contains('/');
                let has_names = !self.names_below(name.as_str()).is_empty();
                if is_first || has_names {
                    Ok(Found::Directory)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The repository: from memory, or resolved now. Waits while it is being prepared, as long as
    /// the caller lets it.
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
        if let Some(error @ RepoError::NotFound { .. }) = slot.recent_failure() {
            return Err(error);
        }
        let load = || self.load_until_ready(name, &slot);
        let repository = slot.repository.get_or_try_init(load).await?;
        Ok(Arc::clone(repository))
    }

    /// Forgets the names that can't be read, and that nobody looks up now.
    fn forget_failed(&self, slots: &mut BTreeMap<RepoName, Arc<Slot>>) {
        slots.retain(|_, slot| slot.repository.get().is_some() || Arc::strong_count(slot) > 1);
        let traffic = &self.segments.backend().traffic;
        traffic.retain(|name| slots.contains_key(name));
    }

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
            slot.note(Some(error.clone()));
            if !matches!(error, RepoError::NotReady { .. }) {
                return Err(error);
            }
            sleep(NOT_READY_PAUSE).await;
        }
    }

    async fn load(&self, name: &RepoName) -> Result<Repository, LoadError> {
        let source = &self.segments.backend().source;
        let answer = current_tail(&**source, name, crate::view::TAIL_LEN, None).await?;
        let TailAnswer::Tail(tail) = answer else {
            let url = cachewfs_format::api::stable_path(name, ArchiveKind::Checkout);
            return Err(FetchError::Status { url, status: 304 }.into());
        };
        let objects_directory = self
            .options
            .mount_point
            .join(".objects")
            .join(name.as_str());
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
    fn note(&self, error: Option<RepoError>) {
        let failure = error.map(|error| (Instant::now(), error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn recent_failure(&self) -> Option<RepoError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = failure.as_ref()?;
        (at.elapsed() < ABSENT_FOR).then(|| error.clone())
    }
}
