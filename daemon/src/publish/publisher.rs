//! A publish from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::{ArchiveSummary, Digest, Manifest, Pointer, RepoName, SnapshotId};
use tracing::{info, warn};

use super::PublishError;
use super::build::{Built, Snapshot, build};
use super::feed::BuildFeed;
use super::job::Job;
use super::present::{Found, check_lease};
use super::refs::Refs;
use super::retain::retain_orphans;
use super::segments::SegmentSink;
use super::takeover::take_over;
use crate::clock::seconds_since_epoch;
use crate::collection;
use crate::config::LiveConfig;
use crate::error_chain::chain;
use crate::metrics::{Metrics, Phase, PhaseTimer};
use crate::mirror::{Git, Upstream, missing_objects};
use crate::store::{Collection, Holder, Lease, Leases, Protection, Store, Written};

/// How long another daemon may take between its manifest and the pointer: a few requests to a bucket.
const WINNERS_TURN: Duration = Duration::from_secs(3);
/// In seconds. By how much the clocks of two daemons may differ.
const MAX_CLOCK_SKEW: u64 = 10;

/// What a publish left as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) snapshot: SnapshotId,
    /// Whether it is another than before.
    pub(crate) moved: bool,
}

/// What came of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// Nothing: another daemon, which has this name, publishes the repository.
    HeldBy(Arc<str>),
}

/// How packs are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As it is best: with an increment if that does.
    AsNeeded,
    /// All anew.
    Anew,
}

/// How a mirror is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) layout: Layout,
    /// Whether objects that are published and that the mirror lacks are taken from the store. Otherwise
    /// that is an error: an update may bring them, and what is published is newer than the mirror.
    pub(crate) takes_over: bool,
}

/// Publishes mirrors into a store.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    git: Git,
    pub(super) store: Store,
    pub(super) config: Arc<LiveConfig>,
    pub(super) metrics: Arc<Metrics>,
    pub(crate) leases: Arc<Leases>,
}

impl Publisher {
    pub(crate) fn new(git: Git, store: Store, config: Arc<LiveConfig>) -> Self {
        let metrics = Arc::<Metrics>::default();
        let me = Holder::of_data_dir(&config.now().data_dir);
        let leases = Arc::new(Leases::new(me, Arc::clone(&metrics)));
        Self {
            git,
            store,
            config,
            metrics,
            leases,
        }
    }

    /// Where the whole daemon counts.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Where snapshots are published.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Publishes the present state of `mirror`, unless it is what is current. The caller sees to it
    /// that nothing changes the mirror meanwhile. The first snapshot is fed as it is built.
    ///
    /// If there is something to publish and another daemon does that already, nothing is done.
    pub(crate) fn publish(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (order, feed): (Order, &BuildFeed),
    ) -> Result<Attempt<Published>, PublishError> {
        let mut published = self.publish_fed(repo, (upstream, mirror), (order, feed));
        if let Err(PublishError::Store(error)) = &published
            && self.store.set_damaged_aside(error).is_ok_and(|was| was)
        {
            // The snapshot that this one was to build on is damaged in the store: build anew.
            let error = chain(error);
            warn!(%repo, error, "A segment of {repo} is damaged in the store and is made anew");
            published = self.publish_fed(repo, (upstream, mirror), (order, feed));
        }
        feed.clear();
        published
    }

    fn publish_fed(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (order, feed): (Order, &BuildFeed),
    ) -> Result<Attempt<Published>, PublishError> {
        let started = Instant::now();
        let config = self.config.now();
        let mut refs = Refs::read(&self.git, mirror, &config.namespaces)?;
        let (present, lease) = match self.find(repo, &refs, order)? {
            Found::Unchanged(published) => return Ok(Attempt::Done(published)),
            Found::HeldBy(holder) => return Ok(Attempt::HeldBy(holder)),
            Found::New(present, lease) => (present, lease),
        };
        let (pointer, base) = (&present.pointer, present.base());
        let previous = present.current.as_ref();
        if let Some(previous) = previous {
            self.catch_up(previous, (mirror, order))?;
            let tips = (&previous.tips[..], &refs);
            if retain_orphans(&self.git, mirror, tips, config.retain_orphans)? {
                refs = Refs::read(&self.git, mirror, &config.namespaces)?;
            }
        }
        let parent = crate::app::tmp_directory(&config);
        let tmp = tempfile::Builder::new()
            .prefix("publish-")
            .tempdir_in(&parent)
            .map_err(PublishError::at(&parent))?;
        let job = Job {
            git: &self.git,
            config: &config,
            mirror,
            tmp: tmp.path(),
            metrics: &self.metrics.publishes,
            lease: lease.as_ref(),
        };
        let mut sink = SegmentSink::new(&self.git, tmp.path());
        let of = Snapshot {
            repo,
            upstream,
            refs: &refs,
            previous: base,
            store: &self.store,
            feed: previous.is_none().then_some(feed),
        };
        let built = build(&job, &mut sink, &of)?;
        let mut manifest = to_manifest(&of, built);
        check_lease(lease.as_ref())?;
        // Another daemon may have been faster: then nothing of this is of use.
        if self.store.pointer(repo)? != *pointer {
            return Err(PublishError::Raced);
        }
        let timer = PhaseTimer::start(job.metrics, Phase::Store);
        let mut new = sink.into_new();
        if !self.store.collects_without_waiting() {
            // Asked for each, a bucket would say that it has it. Whether all are there is looked at in the end.
            let known = base.map(Manifest::segments).unwrap_or_default();
            new.retain(|segment| !known.contains(&segment.id));
        }
        let new_bytes = self.store.put_segments(repo, new)?;
        let under = (lease.as_ref(), pointer.as_ref());
        self.make_current(&mut manifest, under, base)?;
        timer.wrote(new_bytes);
        drop(timer);
        let snapshot = manifest.snapshot;
        let size_bytes = manifest.archives.values().map(|layout| layout.size).max();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let packs = manifest.packs.len();
        info!(%repo, %snapshot, size_bytes, new_bytes, packs, duration_ms, "Published {snapshot} of {repo}");
        Ok(Attempt::Done(Published {
            snapshot,
            moved: true,
        }))
    }

    /// Makes sure that the mirror has what is published: a daemon that is behind another must not undo
    /// what that has published.
    fn catch_up(
        &self,
        previous: &Manifest,
        (mirror, order): (&Path, Order),
    ) -> Result<(), PublishError> {
        let missing = missing_objects(&self.git, mirror, &previous.tips)?;
        if missing.is_empty() {
            return Ok(());
        }
        if !order.takes_over {
            return Err(PublishError::Behind);
        }
        let missing: Vec<_> = missing.into_iter().collect();
        take_over(&self.git, &self.store, mirror, (previous, &missing))
    }

    /// The first id whose manifest isn't there. Gives up in favour of another daemon that publishes from the
    /// same pointer, has written its manifest and is about to move the pointer: else there would be two
    /// snapshots of one state, one of them never current. Waits for a moment at most: the other may have been
    /// killed in between.
    fn unwritten_id(
        &self,
        new: &Manifest,
        (expected, base): (Option<&Pointer>, Option<&Manifest>),
    ) -> Result<SnapshotId, PublishError> {
        let deadline = Instant::now() + WINNERS_TURN;
        let mut ids = ids_for(new, base);
        loop {
            let id = ids.next().expect("there is always another id");
            let Some((taken, _)) = self.store.manifest(&new.repo, id)? else {
                return Ok(id);
            };
            let is_of_the_past = expected.is_some_and(|pointer| is_older(&taken, pointer));
            while !is_of_the_past && Instant::now() < deadline {
                if self.store.pointer(&new.repo)?.as_ref() != expected {
                    return Err(PublishError::Raced);
                }
                pause();
            }
        }
    }

    /// The first id that no snapshot has or had.
    fn free_id(
        &self,
        new: &Manifest,
        base: Option<&Manifest>,
        secured: &Protection,
    ) -> Result<SnapshotId, PublishError> {
        let mut ids = ids_for(new, base);
        loop {
            let id = ids.next().expect("there is always another id");
            let is_taken =
                secured.is_used(id) || self.store.manifest_written_at(&new.repo, id)?.is_some();
            if !is_taken {
                return Ok(id);
            }
        }
    }

    /// Writes the manifest, whose segments are stored, under the first free id, and makes it current.
    fn make_current(
        &self,
        manifest: &mut Manifest,
        (lease, expected): (Option<&Lease>, Option<&Pointer>),
        base: Option<&Manifest>,
    ) -> Result<(), PublishError> {
        self.check_fence(&manifest.repo, lease)?;
        let unwritten = self.unwritten_id(manifest, (expected, base))?;
        let wanted = manifest.segments();
        let is_stopping = || self.git.is_stopping();
        let secured = self
            .store
            .protect(&manifest.repo, (None, &wanted), is_stopping)?;
        let id = self.free_id(manifest, base, &secured)?;
        // Somebody has written it meanwhile.
        if id != unwritten && !secured.is_used(unwritten) {
            return Err(PublishError::Raced);
        }
        manifest.snapshot = id;
        let (written, digest) = self.store.put_manifest(manifest, &secured)?;
        if written == Written::TooLate {
            return Err(PublishError::Raced);
        }
        let under = (lease, expected);
        self.point_to((&self.store, &secured), (manifest, digest), under)
    }

    /// Makes a snapshot current whose manifest, with this digest, is in `store`, and deletes what is too old.
    pub(super) fn point_to(
        &self,
        (store, secured): (&Store, &Protection),
        (manifest, digest): (&Manifest, Digest),
        (lease, expected): (Option<&Lease>, Option<&Pointer>),
    ) -> Result<(), PublishError> {
        let archives = manifest
            .archives
            .iter()
            .map(|(&kind, layout)| {
                (
                    kind,
                    ArchiveSummary {
                        toc: layout.toc,
                        size: layout.size,
                    },
                )
            })
            .collect();
        check_lease(lease)?;
        let published_at = seconds_since_epoch();
        let replaced = expected.map(|old| old.replaced_by(manifest.snapshot, published_at));
        let fence = expected.map_or(0, |old| old.fence);
        let pointer = Pointer {
            version: Pointer::VERSION,
            snapshot: manifest.snapshot,
            manifest: digest,
            archives,
            published_at,
            replaced: replaced.unwrap_or_default(),
            notice: manifest.notice.clone(),
            fence: fence.max(lease.map_or(0, Lease::token)),
        };
        let swap = (expected, &pointer);
        if store.swap_pointer(&manifest.repo, swap, secured)? == Written::TooLate {
            return Err(PublishError::Raced);
        }
        if store.collects_without_waiting() {
            self.collect(store, &manifest.repo);
        }
        Ok(())
    }

    /// That this fails is no failure of the publish.
    fn collect(&self, store: &Store, repo: &RepoName) {
        let collection = Collection {
            keep: self.config.now().keep(),
            is_dry_run: false,
            is_stopping: &|| self.git.is_stopping(),
        };
        match store.collect(repo, collection) {
            Ok(collected) => collection::log(repo, &collected),
            Err(error) => collection::warn_of(repo, &error),
        }
    }
}

/// The manifest of what was built, with the first id that it may get.
fn to_manifest(of: &Snapshot<'_>, built: Built) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        repo: of.repo.clone(),
        snapshot: SnapshotId::first(of.refs.commit),
        refs_digest: of.refs.digest(),
        created_at: seconds_since_epoch(),
        archives: built.archives,
        packs: built.packs,
        commit_graphs: built.commit_graphs,
        tips: of.refs.tips(),
        runs: built.runs,
        notice: built.notice,
        lfs_objects: Vec::new(),
    }
}

/// The ids that a new snapshot may have: the commit alone, then with the refs' digest.
///
/// Refs may come back to an earlier state, but the archive doesn't, as it keeps what came in
/// between: then the digest goes over the previous snapshot too.
fn ids_for(new: &Manifest, base: Option<&Manifest>) -> impl Iterator<Item = SnapshotId> {
    let commit = new.snapshot.commit();
    let from = base.map(|base| base.snapshot.to_string());
    let from = from.unwrap_or_default();
    let next = move |digest: &Digest| Some(Digest::of(format!("{digest} {from}").as_bytes()));
    let later = std::iter::successors(Some(new.refs_digest), next)
        .map(move |digest| SnapshotId::later(commit, &digest));
    std::iter::once(SnapshotId::first(commit)).chain(later)
}

/// Whether what a manifest says was published before what `pointer` says.
fn is_older(manifest: &Manifest, pointer: &Pointer) -> bool {
    let id = manifest.snapshot;
    let was_current =
        pointer.snapshot == id || pointer.replaced.iter().any(|old| old.snapshot == id);
    was_current || manifest.created_at + MAX_CLOCK_SKEW < pointer.published_at
}

/// Between two looks at the pointer.
#[expect(
    clippy::disallowed_methods,
    reason = "publishes run on threads of their own, and this is within a deadline"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
