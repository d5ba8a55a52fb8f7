//! A publish from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::{ArchiveSummary, Digest, Manifest, Pointer, RepoName, SnapshotId};
use tracing::info;

use super::PublishError;
use super::build::{Built, Snapshot, build};
use super::feed::BuildFeed;
use super::job::Job;
use super::refs::Refs;
use super::retain::retain_orphans;
use super::segments::SegmentSink;
use super::takeover::take_over;
use crate::clock::seconds_since_epoch;
use crate::config::LiveConfig;
use crate::metrics::{Metrics, Phase, PhaseTimer};
use crate::mirror::{Git, Upstream, missing_objects};
use crate::store::{Store, Written};

/// What a publish left as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) snapshot: SnapshotId,
    /// Whether it is another than before.
    pub(crate) moved: bool,
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
}

impl Publisher {
    pub(crate) fn new(git: Git, store: Store, config: Arc<LiveConfig>) -> Self {
        Self {
            git,
            store,
            config,
            metrics: Arc::default(),
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
    pub(crate) fn publish(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (order, feed): (Order, &BuildFeed),
    ) -> Result<Published, PublishError> {
        let published = self.publish_fed(repo, (upstream, mirror), (order, feed));
        feed.clear();
        published
    }

    fn publish_fed(
        &self,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        (order, feed): (Order, &BuildFeed),
    ) -> Result<Published, PublishError> {
        let started = Instant::now();
        let config = self.config.now();
        let mut refs = Refs::read(&self.git, mirror, &config.namespaces)?;
        let pointer = self.store.pointer(repo)?;
        let previous = match &pointer {
            Some(pointer) => Some(self.store.current_manifest(repo, pointer)?),
            None => None,
        };
        // What can't be read any more is no base to build on.
        let base = match &previous {
            Some(previous) if order.layout == Layout::AsNeeded => {
                self.has_base(previous)?.then_some(previous)
            }
            _ => None,
        };
        if let Some(previous) = base.filter(|base| base.refs_digest == refs.digest()) {
            return Ok(Published {
                snapshot: previous.snapshot,
                moved: false,
            });
        }
        if let Some(previous) = &previous {
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
        let manifest = self.to_manifest(&of, built)?;
        // Another daemon may have been faster: then nothing of this is of use.
        if self.store.pointer(repo)? != pointer {
            return Err(PublishError::Raced);
        }
        let timer = PhaseTimer::start(job.metrics, Phase::Store);
        let new_bytes = self.store.put_segments(repo, sink.into_new())?;
        self.make_current(&manifest, pointer.as_ref())?;
        timer.wrote(new_bytes);
        drop(timer);
        let snapshot = manifest.snapshot;
        let size_bytes = manifest.archives.values().map(|layout| layout.size).max();
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let packs = manifest.packs.len();
        info!(%repo, %snapshot, size_bytes, new_bytes, packs, duration_ms, "Published {snapshot} of {repo}");
        Ok(Published {
            snapshot,
            moved: true,
        })
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

    /// Whether packs and commit-graph of `previous` are all there; what is found damaged is put away.
    fn has_base(&self, previous: &Manifest) -> Result<bool, PublishError> {
        let of_packs = previous
            .packs
            .iter()
            .flat_map(|pack| [&pack.pack, &pack.index, &pack.reverse_index]);
        let files = of_packs.chain(&previous.commit_graphs);
        Ok(self.store.has_all(&previous.repo, files)?)
    }

    fn to_manifest(&self, of: &Snapshot<'_>, built: Built) -> Result<Manifest, PublishError> {
        Ok(Manifest {
            version: Manifest::VERSION,
            repo: of.repo.clone(),
            snapshot: self.free_id(of.repo, of.refs, of.previous)?,
            refs_digest: of.refs.digest(),
            created_at: seconds_since_epoch(),
            archives: built.archives,
            packs: built.packs,
            commit_graphs: built.commit_graphs,
            tips: of.refs.tips(),
            runs: built.runs,
            lfs_objects: Vec::new(),
        })
    }

    /// The id of a new snapshot: the commit alone if it has none yet, else with the refs' digest.
    ///
    /// Refs may come back to an earlier state, but the archive doesn't, as it keeps what came in
    /// between: then the digest goes over the previous snapshot too.
    fn free_id(
        &self,
        repo: &RepoName,
        refs: &Refs,
        previous: Option<&Manifest>,
    ) -> Result<SnapshotId, PublishError> {
        let mut id = SnapshotId::first(refs.commit);
        let mut digest = refs.digest();
        while self.store.manifest(repo, id)?.is_some() {
            let later = SnapshotId::later(refs.commit, &digest);
            let from = previous
                .map(|previous| previous.snapshot.to_string())
                .unwrap_or_default();
            digest = Digest::of(format!("{digest} {from}").as_bytes());
            id = later;
        }
        Ok(id)
    }

    fn make_current(
        &self,
        manifest: &Manifest,
        expected: Option<&Pointer>,
    ) -> Result<(), PublishError> {
        let (written, digest) = self.store.put_manifest(manifest)?;
        if written == Written::TooLate {
            return Err(PublishError::Raced);
        }
        self.point_to(&self.store, (manifest, digest), expected)
    }

    /// Makes a snapshot current whose manifest, with this digest, is in `store`, and deletes what is too old.
    pub(super) fn point_to(
        &self,
        store: &Store,
        (manifest, digest): (&Manifest, Digest),
        expected: Option<&Pointer>,
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
        let published_at = seconds_since_epoch();
        let replaced = expected.map(|old| old.replaced_by(manifest.snapshot, published_at));
        let pointer = Pointer {
            version: Pointer::VERSION,
            snapshot: manifest.snapshot,
            manifest: digest,
            archives,
            published_at,
            replaced: replaced.unwrap_or_default(),
        };
        if store.swap_pointer(&manifest.repo, expected, &pointer)? == Written::TooLate {
            return Err(PublishError::Raced);
        }
        let config = self.config.now();
        let limits = (config.keep_snapshots, config.delete_grace);
        let deleted_segments = store.collect(&manifest.repo, &pointer, limits)?;
        if deleted_segments > 0 {
            info!(repo = %manifest.repo, deleted_segments, "Deleted segments that no snapshot names");
        }
        Ok(())
    }
}
