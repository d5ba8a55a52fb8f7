//! A publish from beginning to end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cachewfs_format::{
    ArchiveKind, ArchiveSummary, Digest, Manifest, PackKind, Pointer, PublishedFile, PublishedPack,
    RepoName, SnapshotId,
};
use tracing::{info, warn};

use super::assemble::{Parts, assemble};
use super::checkout::{Checkout, check_out};
use super::commit_graph::{Extent, write_commit_graph};
use super::git_files::GitFiles;
use super::increment::{Plan, increment};
use super::job::Job;
use super::layout::full_layout;
use super::pack::NewPack;
use super::refs::Refs;
use super::retain::retain_orphans;
use super::segments::{INDEX_CHUNK_LEN, SegmentSink};
use super::{PublishError, times};
use crate::config::Config;
use crate::error_chain::chain;
use crate::mirror::{Git, Upstream};
use crate::store::{DiskStore, Written};

/// What a publish left as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) snapshot: SnapshotId,
    /// Whether it is another than before.
    pub(crate) moved: bool,
}

/// Publishes mirrors into a store.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    git: Git,
    store: DiskStore,
    config: Arc<Config>,
}

impl Publisher {
    pub(crate) fn new(git: Git, store: DiskStore, config: Arc<Config>) -> Self {
        Self { git, store, config }
    }

    /// Publishes the present state of `mirror`, unless it is what is current. The caller sees to it
    /// that nothing changes the mirror meanwhile.
    pub(crate) fn publish(
        &self,
        repo: &RepoName,
        upstream: &Upstream,
        mirror: &Path,
    ) -> Result<Published, PublishError> {
        let started = Instant::now();
        let mut refs = Refs::read(&self.git, mirror, &self.config.namespaces)?;
        let pointer = self.store.pointer(repo)?;
        let previous = match &pointer {
            Some(pointer) => Some(self.store.current_manifest(repo, pointer)?),
            None => None,
        };
        if let Some(previous) = previous
            .as_ref()
            .filter(|previous| previous.refs_digest == refs.digest())
        {
            return Ok(Published {
                snapshot: previous.snapshot,
                moved: false,
            });
        }
        if let Some(previous) = &previous {
            let tips = (&previous.tips[..], &refs);
            if retain_orphans(&self.git, mirror, tips, self.config.retain_orphans)? {
                refs = Refs::read(&self.git, mirror, &self.config.namespaces)?;
            }
        }
        let parent = crate::app::tmp_directory(&self.config);
        let tmp = tempfile::Builder::new()
            .prefix("publish-")
            .tempdir_in(&parent)
            .map_err(PublishError::at(&parent))?;
        let job = Job {
            git: &self.git,
            config: &self.config,
            mirror,
            tmp: tmp.path(),
        };
        let mut sink = SegmentSink::new(&self.git, tmp.path());
        let manifest = self.build(
            &job,
            &mut sink,
            &Snapshot {
                repo,
                upstream,
                refs: &refs,
                previous: previous.as_ref(),
            },
        )?;
        let new_bytes = self.store.put_segments(repo, sink.into_new())?;
        self.make_current(&manifest, pointer.as_ref())?;
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

    fn build(
        &self,
        job: &Job<'_>,
        sink: &mut SegmentSink,
        of: &Snapshot<'_>,
    ) -> Result<Manifest, PublishError> {
        let &Snapshot {
            repo,
            upstream,
            refs,
            previous,
        } = of;
        let (packs, extent) = self.packs(job, sink, previous)?;
        let links = write_commit_graph(job, extent)?;
        let known: HashMap<&str, &PublishedFile> = previous
            .iter()
            .flat_map(|previous| &previous.commit_graphs)
            .map(|link| (link.name.as_str(), link))
            .collect();
        let mut commit_graphs = Vec::new();
        for path in links {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            commit_graphs.push(match known.get(&*name) {
                Some(&link) => link.clone(),
                None => sink.store_file(&path, INDEX_CHUNK_LEN)?,
            });
        }
        let checkout = match check_out(job, sink, previous) {
            Err(error) if error.is_refused_tree() => {
                let error = chain(&error);
                warn!(%repo, error, "HEAD of {repo} can't be checked out: there is only a mirror archive");
                None
            }
            checkout => Some(checkout?),
        };
        let git_files = GitFiles {
            refs,
            upstream_url: upstream.url(),
            namespaces: &self.config.namespaces,
            commit_graphs: &commit_graphs,
        };
        let parts = Parts {
            repo,
            git_files,
            packs: &packs,
            checkout: checkout.as_ref(),
        };
        let kinds = match &checkout {
            Some(_) => &[ArchiveKind::Mirror, ArchiveKind::Checkout][..],
            None => &[ArchiveKind::Mirror],
        };
        let mut archives = std::collections::BTreeMap::new();
        for &kind in kinds {
            archives.insert(kind, assemble(&parts, sink, kind)?);
        }
        Ok(Manifest {
            version: Manifest::VERSION,
            repo: repo.clone(),
            snapshot: self.free_id(repo, refs, previous)?,
            refs_digest: refs.digest(),
            created_at: now(),
            archives,
            packs,
            commit_graphs,
            tips: refs.tips(),
            runs: checkout.map(Checkout::into_reusable).unwrap_or_default(),
        })
    }

    /// The packs of the snapshot, in the order in which git searches them.
    fn packs(
        &self,
        job: &Job<'_>,
        sink: &mut SegmentSink,
        previous: Option<&Manifest>,
    ) -> Result<(Vec<PublishedPack>, Extent), PublishError> {
        let plan = match previous {
            Some(previous) => increment(job, &self.store, previous)?,
            None => Plan::Relayout,
        };
        let mut packs: Vec<_> = previous
            .map(|previous| previous.packs.clone())
            .unwrap_or_default();
        match plan {
            Plan::Keep => Ok((packs, Extent::New)),
            Plan::Add { pack, replaces } => {
                let is_increment = |pack: &PublishedPack| pack.kind == PackKind::Increment;
                let first = packs.iter().position(is_increment).unwrap_or_else(|| {
                    let is_hot = |pack: &PublishedPack| {
                        times::of_pack(pack.kind, 0) > times::of_pack(PackKind::Increment, 0)
                    };
                    packs.iter().filter(|pack| is_hot(pack)).count()
                });
                drop(packs.splice(first..first + replaces, [pack.store(sink)?]));
                Ok((packs, Extent::New))
            }
            Plan::Relayout => {
                let store = |pack: NewPack| pack.store(sink);
                let packs = full_layout(job)?
                    .into_iter()
                    .map(store)
                    .collect::<Result<_, _>>()?;
                Ok((packs, Extent::All))
            }
        }
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
        let pointer = Pointer {
            version: Pointer::VERSION,
            snapshot: manifest.snapshot,
            manifest: digest,
            archives,
            published_at: now(),
        };
        if self
            .store
            .swap_pointer(&manifest.repo, expected, &pointer)?
            == Written::TooLate
        {
            return Err(PublishError::Raced);
        }
        let limits = (self.config.keep_snapshots, self.config.delete_grace);
        let deleted_segments = self.store.collect(&manifest.repo, &pointer, limits)?;
        if deleted_segments > 0 {
            info!(repo = %manifest.repo, deleted_segments, "Deleted segments that no snapshot names");
        }
        Ok(())
    }
}

/// What is published.
struct Snapshot<'a> {
    repo: &'a RepoName,
    upstream: &'a Upstream,
    refs: &'a Refs,
    previous: Option<&'a Manifest>,
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
