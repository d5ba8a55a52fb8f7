//! [`Publisher`]: publishes the snapshot of a mirror. How it becomes current is in [`Commit`].
//!
//! ```text
//! read refs ─► look at the store ─► lease ─► keep dropped tips ─► build in `tmp` ─► commit
//! ```

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::{Manifest, RepoName, SnapshotId};
use tracing::{info, warn};

use super::PublishError;
use super::attempt::{Attempt, PublishOptions, PublishOutcome};
use super::build::{BuildOutput, build};
use super::commit::{Commit, Target};
use super::feed::BuildFeed;
use super::input::BuildInput;
use super::job::PublishJob;
use super::new_id::NewId;
use super::published_state::PublishedState;
use super::refs::Refs;
use super::retain::retain_orphans;
use super::segments::SegmentSink;
use super::takeover::take_over;
use crate::base::{chain, seconds_since_epoch};
use crate::config::{Config, LiveConfig};
use crate::metrics::{Metrics, Phase, PhaseTimer};
use crate::mirror::{Git, Upstream, missing_objects};
use crate::store::{Holder, Leases, Store, wait};

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
            && wait(self.store.set_damaged_aside(error)).is_ok_and(|was| was)
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
        let refs = Refs::read(&self.git, mirror, &config.mirrors.namespaces)?;
        let target = Target {
            store: &self.store,
            repo,
            leases: &self.leases,
            config: &config,
            git: &self.git,
        };
        let look = |commit: &Commit<'_>| {
            let of = (&refs, options.layout);
            let state = PublishedState::read((&self.store, repo), commit.pointer(), of)?;
            Ok::<_, PublishError>(match state.unchanged(&refs) {
                Some(published) => ControlFlow::Break(published),
                None => ControlFlow::Continue(state),
            })
        };
        Commit::attempt(target, look, |commit, state| {
            let base = state.base();
            let previous = state.current.as_ref();
            let mut retained = None;
            if let Some(previous) = previous {
                self.require_published_tips(previous, (mirror, options))?;
                // Before packs are made, because they are made of all that refs reach: tips that
                // upstream has dropped since the previous snapshot become hidden refs.
                let tips = (&previous.tips[..], &refs);
                if retain_orphans(&self.git, mirror, tips, config.publish.retain_orphans)? {
                    retained = Some(Refs::read(&self.git, mirror, &config.mirrors.namespaces)?);
                }
            }
            let input = BuildInput {
                repo,
                upstream,
                refs: retained.as_ref().unwrap_or(&refs),
                previous: base,
                store: &self.store,
                // The feed is for clients that have no archive to download yet. With a snapshot in
                // the store, they get that one.
                feed: previous.is_none().then_some(feed),
            };
            self.build_and_finish(commit, &input, (&config, mirror, started))
        })
    }

    /// Builds the snapshot and makes it current.
    fn build_and_finish(
        &self,
        commit: &Commit<'_>,
        input: &BuildInput<'_>,
        (config, mirror, started): (&Config, &Path, Instant),
    ) -> Result<PublishOutcome, PublishError> {
        let parent = config.data_dir.tmp();
        let tmp = tempfile::Builder::new()
            .prefix("publish-")
            .tempdir_in(&parent)
            .map_err(PublishError::at(&parent))?;
        // The segments stay in this directory until they are uploaded. Dropping it removes them, so
        // a failed publish leaves nothing. The next start of the daemon sweeps what a crash leaves.
        let job = PublishJob {
            git: &self.git,
            config,
            mirror,
            tmp: tmp.path(),
            metrics: &self.metrics.publishes,
            lease: commit.lease(),
        };
        let mut sink = SegmentSink::new(&self.git, tmp.path());
        let built = build(&job, &mut sink, input)?;
        let mut manifest = to_manifest(input, built);
        let timer = PhaseTimer::start(job.metrics, Phase::Store);
        let mut new = sink.into_new();
        if !self.store.collects_without_waiting() {
            // A bucket would refuse each segment that it has already, with one request each.
            // Skipping them is safe: before the manifest is written, the store checks that all
            // segments are there. A directory must get them all, because storing a segment that it
            // has already renews the segment's age, and so delays its deletion.
            let known = input.previous.map(Manifest::segments).unwrap_or_default();
            new.retain(|segment| !known.contains(&segment.id));
        }
        let new_bytes = commit.finish(&mut manifest, new, NewId::Unused(input.previous))?;
        timer.wrote(new_bytes);
        drop(timer);
        let (repo, snapshot) = (input.repo, manifest.snapshot);
        let size_bytes = manifest.archives.values().map(|layout| layout.size).max();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let packs = manifest.packs.len();
        info!(
            %repo, %snapshot, size_bytes, new_bytes, packs, duration_ms,
            "Published {snapshot} of {repo}"
        );
        Ok(PublishOutcome {
            snapshot,
            moved: true,
        })
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
