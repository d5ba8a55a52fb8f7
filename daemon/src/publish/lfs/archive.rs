//! Making an LFS archive: objects of the previous archive are used again, all others are fetched.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};
use cachewfs_format::{
    ArchiveKind, Digest, GitPath, Manifest, ObjectId, PublishedFile, PublishedLfsObject, RepoName,
    Role, SnapshotId, TocFile, end_of_archive,
};
use tracing::info;

use super::list::wanted_objects;
use super::pointer::LfsPointer;
use super::{LfsError, LfsOid};
use crate::base::seconds_since_epoch;
use crate::mirror::{Git, LfsObject, Upstream, fetch_lfs_objects};
use crate::publish::assemble::ArchiveWriter;
use crate::publish::commit::{Commit, Target};
use crate::publish::git_files::git_member;
use crate::publish::job::PublishJob;
use crate::publish::members::MemberWriter;
use crate::publish::new_id::NewId;
use crate::publish::segments::{SEQUENTIAL_CHUNK_LEN, SegmentSink};
use crate::publish::{Attempt, PublishError, Publisher, fixed_times};
use crate::store::{NewSegment, Store, wait};

/// At most this many bytes are in a batch, unless it has only one object. A batch is fetched, then
/// stored, and until then it is on disk twice.
const BATCH_BYTES: u64 = 1 << 30;
/// At most this many objects are in a batch.
const BATCH_OBJECTS: usize = 1000;

/// The objects that are in the store, in the order of the archive.
type StoredObjects = BTreeMap<LfsOid, PublishedLfsObject>;

impl Publisher {
    /// Publishes the LFS objects that the work tree of `commit` needs, unless the current LFS
    /// archive is that of `commit`.
    ///
    /// Returns whether the work tree needs any LFS objects. `git` says when to stop. If another
    /// daemon is publishing them, this call does nothing and returns [`Attempt::HeldBy`].
    pub(crate) fn publish_lfs(
        &self,
        git: &Git,
        repo: &RepoName,
        (upstream, mirror): (&Upstream, &Path),
        commit: ObjectId,
    ) -> Result<Attempt<bool>, LfsError> {
        let started = Instant::now();
        let (config, store) = (self.config.now(), self.store.lfs());
        let snapshot = SnapshotId::first(commit);
        let parent = config.data_dir.tmp();
        let tmp = tempfile::Builder::new()
            .prefix("lfs-")
            .tempdir_in(&parent)
            .map_err(PublishError::at(&parent))?;
        let job = PublishJob {
            git,
            config: &config,
            mirror,
            tmp: tmp.path(),
            metrics: &self.metrics.publishes,
            lease: None,
        };
        let target = Target {
            store: &store,
            repo,
            leases: &self.leases,
            config: &config,
            git,
        };
        let look = |publish: &Commit<'_>| {
            if publish.pointer().map(|current| current.snapshot) == Some(snapshot) {
                return Ok(ControlFlow::Break(true));
            }
            // The archive of a commit never changes. So if it was published before, HEAD has
            // returned to this commit, or a publish stopped between manifest and pointer.
            if wait(store.manifest_written_at(repo, snapshot))?.is_some() {
                publish.return_to(snapshot)?;
                return Ok(ControlFlow::Break(true));
            }
            // Listing comes before the lease: it is local, and most commits need no LFS objects.
            let wanted = wanted_objects(&job, &commit)?;
            Ok::<_, LfsError>(if wanted.is_empty() {
                ControlFlow::Break(false)
            } else {
                ControlFlow::Continue(wanted)
            })
        };
        Commit::attempt(target, look, |publish, wanted| {
            let previous = match publish.pointer() {
                Some(current) => Some(wait(store.current_manifest(repo, current))?),
                None => None,
            };
            let objects = LfsArchiveBuilder {
                job: &PublishJob {
                    lease: publish.lease(),
                    ..job
                },
                store: &store,
                repo,
                upstream,
            };
            let (stored, mut new_bytes) = objects.store_all(&wanted, previous)?;
            let (mut manifest, segments) = objects.write_archive(stored, commit)?;
            new_bytes += publish.finish(&mut manifest, segments, NewId::Fixed)?;
            let lfs_objects = manifest.lfs_objects.len();
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(
                %repo, %snapshot, lfs_objects, new_bytes, duration_ms,
                "Published the LFS objects of {snapshot} of {repo}"
            );
            Ok(true)
        })
    }
}

/// The builder of one LFS archive.
struct LfsArchiveBuilder<'a> {
    job: &'a PublishJob<'a>,
    store: &'a Store,
    repo: &'a RepoName,
    upstream: &'a Upstream,
}

impl LfsArchiveBuilder<'_> {
    /// Makes sure that the store has all wanted objects. Returns them, and the number of new bytes.
    fn store_all(
        &self,
        wanted: &BTreeMap<LfsOid, u64>,
        previous: Option<Manifest>,
    ) -> Result<(StoredObjects, u64), LfsError> {
        let known = previous.map_or_else(Vec::new, |previous| previous.lfs_objects);
        let mut known: HashMap<String, PublishedLfsObject> = known
            .into_iter()
            .map(|object| (object.data.name.clone(), object))
            .collect();
        // An object whose segments are missing from the store is fetched again.
        let segments = wait(self.store.segments(self.repo))?;
        let is_there = |object: &PublishedLfsObject| {
            let mut files = [&object.header, &object.data].into_iter();
            files.all(|file| segments.contains(&file.segment.id))
        };
        let (mut stored, mut missing) = (StoredObjects::new(), Vec::new());
        for (oid, &size) in wanted {
            match known.remove(oid.as_str()).filter(is_there) {
                Some(object) => drop(stored.insert(oid.clone(), object)),
                None => missing.push(LfsPointer {
                    oid: oid.clone(),
                    size,
                }),
            }
        }
        let mut new_bytes = 0;
        for batch in batches(&missing) {
            new_bytes += self.fetch(batch, &mut stored)?;
        }
        Ok((stored, new_bytes))
    }

    /// Fetches objects, checks them and moves them to the store. Returns the number of new bytes
    /// there.
    fn fetch(&self, batch: &[LfsPointer], stored: &mut StoredObjects) -> Result<u64, LfsError> {
        let directory = self.job.tmp_path("lfs.git");
        let wanted: Vec<_> = batch
            .iter()
            .map(|LfsPointer { oid, size }| LfsObject {
                oid: oid.to_string(),
                size: *size,
                path: oid.path(),
            })
            .collect();
        let limit = self.job.config.git.lfs_timeout;
        fetch_lfs_objects(self.job.git, self.upstream, (&directory, &wanted), limit).map_err(
            |source| LfsError::Fetch {
                url: self.upstream.url().to_owned(),
                source,
            },
        )?;
        let mut sink = SegmentSink::new(self.job.git, self.job.tmp);
        for LfsPointer { oid, .. } in batch {
            let path = directory.join(oid.path());
            self.check(oid, &path)?;
            let data = sink.store_file(&path, SEQUENTIAL_CHUNK_LEN)?;
            fs::remove_file(&path).map_err(PublishError::at(&path))?;
            let header = header(&mut sink, oid, &data)?;
            stored.insert(oid.clone(), PublishedLfsObject { header, data });
        }
        fs::remove_dir_all(&directory).map_err(PublishError::at(&directory))?;
        Ok(wait(self.store.put_segments(self.repo, sink.into_new()))?)
    }

    /// Fails if the SHA-256 of the file isn't the id of the object.
    fn check(&self, oid: &LfsOid, path: &Path) -> Result<(), LfsError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LfsError::Missing { oid: oid.clone() });
            }
            file => file.map_err(PublishError::at(path))?,
        };
        let mut context = Context::new(&SHA256);
        let mut block = vec![0; SEQUENTIAL_CHUNK_LEN];
        loop {
            self.job.check_stop()?;
            let len = file.read(&mut block).map_err(PublishError::at(path))?;
            if len == 0 {
                break;
            }
            context.update(block.get(..len).unwrap_or_default());
        }
        let digest = context.finish();
        let mut digits = String::new();
        for byte in digest.as_ref() {
            write!(digits, "{byte:02x}").ok();
        }
        if digits == oid.as_str() {
            Ok(())
        } else {
            Err(LfsError::WrongContent { oid: oid.clone() })
        }
    }

    /// Makes the TOC and the seek table of the archive of `objects`. Returns the manifest, and the
    /// segments that the store lacks.
    fn write_archive(
        &self,
        objects: StoredObjects,
        commit: ObjectId,
    ) -> Result<(Manifest, Vec<NewSegment>), LfsError> {
        let mut sink = SegmentSink::new(self.job.git, self.job.tmp);
        let mut archive = ArchiveWriter::new(ArchiveKind::Lfs, None);
        for (oid, object) in &objects {
            archive.place(&sink, Role::Header, &object.header, None);
            let file = TocFile {
                path: GitPath::parse(oid.path().as_bytes()).map_err(PublishError::from)?,
                size: object.data.size,
                mtime: fixed_times::GIT_DIRECTORY,
            };
            archive.place(&sink, Role::LfsObject, &object.data, Some(file));
        }
        let end = sink.store_bytes(&end_of_archive(), 0, Vec::new())?;
        archive.place(&sink, Role::End, &end, None);
        // The archive depends on the commit alone, so refs have no part in its identity.
        let refs_digest = Digest::of(b"");
        let layout = archive.finish(&mut sink, self.repo, (commit, refs_digest))?;
        let manifest = Manifest {
            version: Manifest::VERSION,
            repo: self.repo.clone(),
            snapshot: SnapshotId::first(commit),
            refs_digest,
            created_at: seconds_since_epoch(),
            archives: [(ArchiveKind::Lfs, layout)].into(),
            packs: Vec::new(),
            commit_graphs: Vec::new(),
            tips: Vec::new(),
            runs: Vec::new(),
            notice: None,
            lfs_objects: objects.into_values().collect(),
        };
        Ok((manifest, sink.into_new()))
    }
}

/// Stores the tar header of an object.
fn header(
    sink: &mut SegmentSink,
    oid: &LfsOid,
    data: &PublishedFile,
) -> Result<PublishedFile, PublishError> {
    let member = git_member(ArchiveKind::Lfs, oid.path().as_bytes(), 0o444)?;
    let mut members = MemberWriter::begin(sink)?;
    members.file_elsewhere(member, data.size, data.segment.id)?;
    let header = members.finish(sink)?;
    Ok(PublishedFile {
        name: oid.to_string(),
        ..header
    })
}

/// Cuts `pointers` into batches.
fn batches(pointers: &[LfsPointer]) -> impl Iterator<Item = &[LfsPointer]> {
    let (mut objects, mut bytes) = (0, 0_u64);
    pointers.chunk_by(move |one, next| {
        objects += 1;
        bytes = bytes.saturating_add(one.size);
        let goes_on = objects < BATCH_OBJECTS && bytes.saturating_add(next.size) <= BATCH_BYTES;
        if !goes_on {
            (objects, bytes) = (0, 0);
        }
        goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_limited_but_has_at_least_one_object() {
        let lens = |sizes: &[u64]| {
            let pointer = |&size| LfsPointer {
                oid: LfsOid::parse(&"4d".repeat(32)).unwrap(),
                size,
            };
            let pointers: Vec<_> = sizes.iter().map(pointer).collect();
            batches(&pointers).map(<[_]>::len).collect::<Vec<_>>()
        };

        assert_eq!(lens(&[]), [0; 0]);
        assert_eq!(lens(&vec![1; 2500]), [1000, 1000, 500]);
        assert_eq!(lens(&[BATCH_BYTES, 1, 1]), [1, 2]);
        assert_eq!(lens(&[1, u64::MAX, u64::MAX, 1]), [1, 1, 1, 1]);
        assert_eq!(lens(&[BATCH_BYTES / 2; 5]), [2, 2, 1]);
    }
}
