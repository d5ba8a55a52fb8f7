//! One publish from beginning to end, and the rules that keep several daemons on one store safe.
//!
//! ```text
//! read refs ─► read pointer ─► claim lease ─► read pointer again ─► build in `tmp`
//!   ─► upload segments ─► choose id ─► protect segments ─► write manifest ─► swap pointer
//! ```
//!
//! No published state is lost, because the pointer moves by compare-and-swap. The lease only saves
//! work: without it, two daemons may build one snapshot, and one of them throws its work away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::{ArchiveSummary, Digest, Manifest, Pointer, RepoName, SnapshotId};
use tracing::{info, warn};

use super::PublishError;
use super::build::{BuildOutput, build};
use super::feed::BuildFeed;
use super::input::BuildInput;
use super::job::PublishJob;
use super::published_state::{PublishDecision, check_lease};
use super::refs::Refs;
use super::retain::retain_orphans;
use super::segments::SegmentSink;
use super::takeover::take_over;
use crate::base::{chain, seconds_since_epoch};
use crate::config::LiveConfig;
use crate::metrics::{Metrics, Phase, PhaseTimer};
use crate::mirror::{Git, Upstream, missing_objects};
use crate::store::{
    Collection, Holder, Lease, Leases, Protection, Store, Written, log_collected,
    log_failed_collection,
};

/// How long a publish waits for another daemon between that daemon's manifest and its pointer swap.
/// These are a few requests to a bucket.
const MAX_POINTER_WAIT: Duration = Duration::from_secs(3);
/// How much the clocks of two daemons may differ, in seconds.
const MAX_CLOCK_SKEW: u64 = 10;

/// The snapshot that is current after a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishOutcome {
    pub(crate) snapshot: SnapshotId,
    /// Whether this publish moved the pointer.
    pub(crate) moved: bool,
}

/// The result of a publish that didn't fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// Another daemon holds the lease and publishes the repository. The text names that daemon.
    HeldBy(Arc<str>),
}

/// How the objects of a snapshot are divided into packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackLayout {
    /// Keep the packs of the previous snapshot and add an increment, if that is possible and the
    /// increments don't take too much of the archive.
    Incremental,
    /// Make all packs from scratch.
    Full,
}

/// Options of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishOptions {
    pub(crate) layout: PackLayout,
    /// Whether the publish copies published objects that the mirror lacks from the store.
    ///
    /// If not, it fails with [`PublishError::Behind`]: the published snapshot is newer than the
    /// mirror, and an update may fetch these objects from upstream.
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
        let leases = Arc::new(Leases::new(me, Arc::clone(&metrics.leases)));
        Self {
            git,
            store,
            config,
            metrics,
            leases,
        }
    }

    /// Returns the metrics of the whole daemon.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Returns the store that snapshots are published into.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Publishes the present state of `mirror`, unless the current snapshot already has this state.
    ///
    /// The caller makes sure that nothing changes the mirror meanwhile. While a repository's first
    /// snapshot is built, its segments go to `feed`. If another daemon is publishing the
    /// repository, this call does nothing and returns [`Attempt::HeldBy`].
    pub(crate) fn publish(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (options, feed): (PublishOptions, &BuildFeed),
    ) -> Result<Attempt<PublishOutcome>, PublishError> {
        let mut published = self.try_publish(repo, (upstream, mirror), (options, feed));
        if let Err(PublishError::Store(error)) = &published
            && self.store.set_damaged_aside(error).is_ok_and(|was| was)
        {
            // The base of this publish is damaged in the store. Its damaged segment has been set
            // aside, so the second attempt finds that the base is incomplete and makes all packs
            // from scratch. One retry is enough: a full layout reads no segments of the base.
            let error = chain(error);
            warn!(%repo, error, "A segment of {repo} is damaged in the store; publishing it again");
            published = self.try_publish(repo, (upstream, mirror), (options, feed));
        }
        // Not earlier: clients follow the feed until the store has the whole archive or the publish
        // has failed.
        feed.clear();
        published
    }

    fn try_publish(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (options, feed): (PublishOptions, &BuildFeed),
    ) -> Result<Attempt<PublishOutcome>, PublishError> {
        let started = Instant::now();
        let config = self.config.now();
        let mut refs = Refs::read(&self.git, mirror, &config.mirrors.namespaces)?;
        let (state, lease) = match self.claim_if_changed(repo, &refs, options)? {
            PublishDecision::Unchanged(published) => return Ok(Attempt::Done(published)),
            PublishDecision::HeldBy(holder) => return Ok(Attempt::HeldBy(holder)),
            PublishDecision::Publish(state, lease) => (state, lease),
        };
        // The lease is released at the end of this function, after the pointer has moved: the next
        // daemon that claims it finds the new snapshot.
        let (pointer, base) = (&state.pointer, state.base());
        let previous = state.current.as_ref();
        if let Some(previous) = previous {
            self.require_published_tips(previous, (mirror, options))?;
            // Before packs are made, because they are made of all that refs reach: tips that
            // upstream has dropped since the previous snapshot become hidden refs.
            let tips = (&previous.tips[..], &refs);
            if retain_orphans(&self.git, mirror, tips, config.publish.retain_orphans)? {
                refs = Refs::read(&self.git, mirror, &config.mirrors.namespaces)?;
            }
        }
        let parent = config.data_dir.tmp();
        let tmp = tempfile::Builder::new()
            .prefix("publish-")
            .tempdir_in(&parent)
            .map_err(PublishError::at(&parent))?;
        // The segments stay in this directory until they are uploaded. Dropping it removes them, so
        // a failed publish leaves nothing. The next start of the daemon sweeps what a crash leaves.
        let job = PublishJob {
            git: &self.git,
            config: &config,
            mirror,
            tmp: tmp.path(),
            metrics: &self.metrics.publishes,
            lease: lease.as_ref(),
        };
        let mut sink = SegmentSink::new(&self.git, tmp.path());
        let input = BuildInput {
            repo,
            upstream,
            refs: &refs,
            previous: base,
            store: &self.store,
            // The feed is for clients that have no archive to download yet. With a snapshot in the
            // store, they get that one.
            feed: previous.is_none().then_some(feed),
        };
        let built = build(&job, &mut sink, &input)?;
        let mut manifest = to_manifest(&input, built);
        // Both checks come before the upload, which is expensive: if another daemon has published
        // meanwhile, the swap of the pointer would fail anyway.
        check_lease(lease.as_ref())?;
        if self.store.pointer(repo)? != *pointer {
            return Err(PublishError::Raced);
        }
        let timer = PhaseTimer::start(job.metrics, Phase::Store);
        let mut new = sink.into_new();
        if !self.store.collects_without_waiting() {
            // A bucket would refuse each segment that it has already, with one request each.
            // Skipping them is safe: before the manifest is written, the store checks that all
            // segments are there. A directory must get them all, because storing a segment that it
            // has already renews the segment's age, and so delays its deletion.
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
        info!(
            %repo, %snapshot, size_bytes, new_bytes, packs, duration_ms,
            "Published {snapshot} of {repo}"
        );
        Ok(Attempt::Done(PublishOutcome {
            snapshot,
            moved: true,
        }))
    }

    /// Makes sure that the mirror has all tips of the current snapshot.
    ///
    /// Otherwise a daemon whose mirror is behind could undo what another daemon has published.
    fn require_published_tips(
        &self,
        previous: &Manifest,
        (mirror, options): (&Path, PublishOptions),
    ) -> Result<(), PublishError> {
        let missing = missing_objects(&self.git, mirror, &previous.tips)?;
        if missing.is_empty() {
            return Ok(());
        }
        if !options.takes_over {
            return Err(PublishError::Behind);
        }
        let missing: Vec<_> = missing.into_iter().collect();
        take_over(&self.git, &self.store, mirror, (previous, &missing))
    }

    /// Returns the first id whose manifest isn't in the store.
    ///
    /// Fails with [`PublishError::Raced`] if another daemon started from the same pointer, has
    /// written its manifest and then moves the pointer. Waits for that for [`MAX_POINTER_WAIT`] at
    /// most.
    fn unwritten_id(
        &self,
        new: &Manifest,
        (expected, base): (Option<&Pointer>, Option<&Manifest>),
    ) -> Result<SnapshotId, PublishError> {
        let deadline = Instant::now() + MAX_POINTER_WAIT;
        let mut ids = ids_for(new, base);
        loop {
            let id = ids.next().expect("there is always another id");
            let Some((taken, _)) = self.store.manifest(&new.repo, id)? else {
                return Ok(id);
            };
            // If the manifest under this id is old, its snapshot was current earlier, or its
            // publish lost a race: take the next id. If it is new, another daemon is between its
            // manifest and its pointer. Taking the next id then would give one state two snapshots,
            // one of which never becomes current. The wait has a limit, because that daemon may
            // have been killed.
            let is_superseded = expected.is_some_and(|pointer| is_older(&taken, pointer));
            while !is_superseded && Instant::now() < deadline {
                if self.store.pointer(&new.repo)?.as_ref() != expected {
                    return Err(PublishError::Raced);
                }
                sleep_between_reads();
            }
        }
    }

    /// Returns the first id that no snapshot has, and that no deleted snapshot had.
    ///
    /// An id must never name two snapshots: its immutable URL would then serve different bytes.
    fn free_id(
        &self,
        new: &Manifest,
        base: Option<&Manifest>,
        protection: &Protection,
    ) -> Result<SnapshotId, PublishError> {
        let mut ids = ids_for(new, base);
        loop {
            let id = ids.next().expect("there is always another id");
            let is_taken =
                protection.is_used(id) || self.store.manifest_written_at(&new.repo, id)?.is_some();
            if !is_taken {
                return Ok(id);
            }
        }
    }

    /// Writes the manifest under the first free id and makes it current. Its segments are uploaded.
    fn make_current(
        &self,
        manifest: &mut Manifest,
        (lease, expected): (Option<&Lease>, Option<&Pointer>),
        base: Option<&Manifest>,
    ) -> Result<(), PublishError> {
        self.check_fence(&manifest.repo, lease)?;
        // This may wait for some seconds, so it comes before the segments are protected: the
        // protection lasts only a short time, in which the manifest must be written.
        let unwritten = self.unwritten_id(manifest, (expected, base))?;
        // A manifest in the store must always have all its segments. A collector may have announced
        // that it deletes some of these, because no manifest names them yet. So the publish reads
        // the deletion notices and checks that the segments are there, and only then writes the
        // manifest.
        let wanted = manifest.segments();
        let is_stopping = || self.git.is_stopping();
        let protection = self
            .store
            .protect(&manifest.repo, (None, &wanted), is_stopping)?;
        let id = self.free_id(manifest, base, &protection)?;
        // The first id was free, and no deleted snapshot had it. So another daemon has just written
        // its manifest under this id, and will move the pointer.
        if id != unwritten && !protection.is_used(unwritten) {
            return Err(PublishError::Raced);
        }
        manifest.snapshot = id;
        let (written, digest) = self.store.put_manifest(manifest, &protection)?;
        // A manifest is only created, never replaced: of two daemons that chose one id, one loses.
        if written == Written::TooLate {
            return Err(PublishError::Raced);
        }
        let under = (lease, expected);
        self.point_to((&self.store, &protection), (manifest, digest), under)
    }

    /// Makes a snapshot current, then collects garbage if the store is a directory.
    ///
    /// The manifest is in `store` and has this digest. Fails with [`PublishError::Raced`] if the
    /// pointer is no longer `expected`.
    pub(super) fn point_to(
        &self,
        (store, protection): (&Store, &Protection),
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
        // A daemon that stood still for a while learns here that its lease has expired. This check
        // isn't atomic with the swap and needn't be: the compare-and-swap below decides.
        check_lease(lease)?;
        let published_at = seconds_since_epoch();
        let replaced = expected.map(|old| old.replaced_by(manifest.snapshot, published_at));
        // The fence never goes down. A daemon with an older lease finds a fence above its token.
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
        if store.swap_pointer(&manifest.repo, swap, protection)? == Written::TooLate {
            return Err(PublishError::Raced);
        }
        if store.collects_without_waiting() {
            self.collect(store, &manifest.repo);
        }
        Ok(())
    }

    /// Collects garbage. A failure is only logged: the snapshot is published already.
    fn collect(&self, store: &Store, repo: &RepoName) {
        let collection = Collection {
            keep: self.config.now().keep,
            is_dry_run: false,
            is_stopping: &|| self.git.is_stopping(),
        };
        match store.collect(repo, collection) {
            Ok(collected) => log_collected(repo, &collected),
            Err(error) => log_failed_collection(repo, &error),
        }
    }
}

/// Returns the manifest of the built snapshot, with the first id that it may get.
fn to_manifest(input: &BuildInput<'_>, built: BuildOutput) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        repo: input.repo.clone(),
        snapshot: SnapshotId::first(input.refs.commit),
        refs_digest: input.refs.digest(),
        created_at: seconds_since_epoch(),
        archives: built.archives,
        packs: built.packs,
        commit_graphs: built.commit_graphs,
        tips: input.refs.tips(),
        runs: built.runs,
        notice: built.notice,
        lfs_objects: Vec::new(),
    }
}

/// Returns the ids that a new snapshot may have: the commit alone, then the commit with a digest.
///
/// The second id has the digest of the refs. Each further id has a digest of the digest before it
/// and the previous snapshot's id. Further ids are needed if the refs return to an earlier state:
/// the archive then differs from the earlier archive, because it keeps the objects that came in
/// between.
fn ids_for(new: &Manifest, base: Option<&Manifest>) -> impl Iterator<Item = SnapshotId> {
    let commit = new.snapshot.commit();
    let from = base.map(|base| base.snapshot.to_string());
    let from = from.unwrap_or_default();
    let next = move |digest: &Digest| Some(Digest::of(format!("{digest} {from}").as_bytes()));
    let later = std::iter::successors(Some(new.refs_digest), next)
        .map(move |digest| SnapshotId::later(commit, &digest));
    std::iter::once(SnapshotId::first(commit)).chain(later)
}

/// Returns whether a manifest was written before the snapshot of `pointer` was published.
fn is_older(manifest: &Manifest, pointer: &Pointer) -> bool {
    let id = manifest.snapshot;
    // The pointer remembers a limited number of snapshots. For older ones and for lost races, only
    // the times tell, and different daemons wrote them.
    let was_current =
        pointer.snapshot == id || pointer.replaced.iter().any(|old| old.snapshot == id);
    was_current || manifest.created_at + MAX_CLOCK_SKEW < pointer.published_at
}

#[expect(
    clippy::disallowed_methods,
    reason = "publishes run on threads of their own, and the caller has a deadline"
)]
fn sleep_between_reads() {
    std::thread::sleep(Duration::from_millis(50));
}
