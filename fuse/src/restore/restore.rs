//! [`Restore`]: one snapshot, from the first request to the last file.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{ArchiveKind, GitHead, PathSequence, RepoName, Role, SegmentId, SnapshotId};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::{JoinSet, spawn_blocking};

use super::RestoreError;
use super::download::download;
use super::git_files::{is_of_index, write_index, write_objects};
use super::plan::{Step, plan};
use super::run_files::CheckedRun;
use super::tree_writer::Taking;
use super::wanted::wait_for;
use crate::control::protocol::Progress;
use crate::fetch::{FetchError, TailAnswer, current_tail};
use crate::mount::open_segments;
use crate::options::MountOptions;
use crate::report::TrafficReport;
use crate::repository::{TAIL_LEN, load_toc};
use crate::segment::{Segment, Segments};
use crate::traffic::Purpose;
use crate::view::{FileContent, Generation, LoadError, Run, StaticNode, runs};

/// At most this many runs are written at the same time.
const MAX_WRITERS: usize = 4;

/// The options of a restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The repository.
    pub repo: RepoName,
    /// The base URLs of the daemons. If one fails, the next is asked.
    pub daemons: Vec<String>,
    /// A file with the token that requests carry.
    pub token_file: Option<PathBuf>,
    /// The directory that keeps chunks until the restore is complete, or longer.
    pub cache_dir: PathBuf,
    /// Whether other restores and mounts use the cache, too. It then has the limit of a mount's.
    pub is_cache_shared: bool,
    /// Whether the mirror archive is restored, which has no work tree.
    pub is_bare: bool,
    /// The refs and commits that the daemon must have before the newest snapshot is restored.
    pub wanted: EnsureRefsRequest,
}

/// The directories to restore into. They exist, and no file of the snapshot is in them yet.
#[derive(Clone, Debug)]
pub struct RestorePlace {
    /// The directory of the work tree. A bare repository has none.
    pub work_tree: Option<PathBuf>,
    /// The git directory.
    pub git_dir: PathBuf,
}

/// A snapshot that is about to be restored.
#[derive(Debug)]
pub struct Restore {
    segments: Arc<Segments>,
    generation: Generation,
    taking: Taking,
}

impl Restore {
    /// Asks for the newest snapshot. While the daemon makes the first one, waits, and calls
    /// `on_wait` with the daemon's message.
    pub async fn open(
        options: &RestoreOptions,
        on_wait: impl Fn(&str),
    ) -> Result<Self, RestoreError> {
        let mut backend = MountOptions::new(PathBuf::new(), options.daemons.clone());
        backend.token_file.clone_from(&options.token_file);
        backend.cache_dir.clone_from(&options.cache_dir);
        if !options.is_cache_shared {
            // The cache goes as a whole when the restore is complete.
            backend.cache_max_bytes = u64::MAX;
        }
        let segments = Arc::new(open_segments(&backend).await?);
        Self::find(options, segments, on_wait).await
    }

    /// Finds the newest snapshot.
    pub(super) async fn find(
        options: &RestoreOptions,
        segments: Arc<Segments>,
        on_wait: impl Fn(&str),
    ) -> Result<Self, RestoreError> {
        if !options.wanted.refs.is_empty() || !options.wanted.commits.is_empty() {
            let source = &*segments.backend().source;
            wait_for(&options.repo, &options.wanted, (source, &on_wait)).await?;
        }
        let generation = loop {
            match load(options, &segments).await {
                Ok(generation) => break generation,
                Err(LoadError::Fetch(error)) if retry_after(&error).is_some() => {
                    on_wait(&error.to_string());
                    tokio::time::sleep(retry_after(&error).unwrap_or_default()).await;
                }
                Err(error) => return Err(RestoreError::of_load(options.repo.as_str(), error)),
            }
        };
        Ok(Self {
            segments,
            generation,
            taking: if options.is_cache_shared {
                Taking::Copy
            } else {
                Taking::Link
            },
        })
    }

    /// Returns the id of the snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.generation.snapshot
    }

    /// Returns HEAD.
    pub fn head(&self) -> Result<GitHead, RestoreError> {
        let head = GitHead::parse(&self.small_file(b"HEAD"));
        head.map_err(|source| RestoreError::Path {
            path: "HEAD".to_owned(),
            source,
        })
    }

    /// Returns the branches and tags, as `packed-refs` of a mirror.
    pub fn packed_refs(&self) -> Arc<[u8]> {
        self.small_file(b"packed-refs")
    }

    /// Returns the URL of upstream, if its protocol only fetches.
    pub fn upstream_url(&self) -> Option<&str> {
        self.generation.upstream_url.as_deref()
    }

    /// Returns the daemon's sentence about files of HEAD's tree that the work tree lacks.
    pub fn notice(&self) -> Option<&str> {
        self.generation.notice.as_deref()
    }

    /// Returns whether the snapshot has a work tree.
    pub fn has_work_tree(&self) -> bool {
        self.generation.has_work_tree()
    }

    /// Returns the counts of requests and bytes so far.
    pub fn traffic(&self) -> TrafficReport {
        self.segments.backend().traffic.report()
    }

    /// Returns a small file of the git directory that the mount has checked.
    fn small_file(&self, path: &[u8]) -> Arc<[u8]> {
        match self.generation.objects.get(path) {
            Some(StaticNode::File(file)) => match &file.content {
                FileContent::Bytes(bytes) => Arc::clone(bytes),
                FileContent::Segment(_) => Arc::default(),
            },
            Some(StaticNode::Directory) | None => Arc::default(),
        }
    }

    /// Writes the work tree, the index and the objects. Returns the counts of requests and bytes.
    ///
    /// After a failure, the files that were written are incomplete, and the cache has all chunks
    /// that arrived.
    pub async fn write(
        self,
        place: &RestorePlace,
        on_progress: impl Fn(&Progress),
    ) -> Result<TrafficReport, RestoreError> {
        let tasks = self.segments.backend().tasks.clone();
        let traffic = Arc::clone(&self.segments.backend().traffic);
        let segments = Arc::clone(&self.segments);
        let taking = self.taking;
        let written = self.write_files(place, on_progress).await;
        tasks.end_all().await;
        if taking == Taking::Copy {
            // Only now: until here, the restore needed its segments.
            spawn_blocking(move || segments.evict())
                .await
                .map_err(stopped)?;
        }
        written.map(|()| traffic.report())
    }

    async fn write_files(
        self,
        place: &RestorePlace,
        on_progress: impl Fn(&Progress),
    ) -> Result<(), RestoreError> {
        let Generation {
            segments,
            toc,
            objects,
            ..
        } = self.generation;
        let name = toc.repo.to_string();
        let is_wanted = |segment: &Arc<Segment>| {
            let role = segment.record().role;
            role.part().is_some() && !matches!(role, Role::IndexHeader | Role::IndexTrailer)
        };
        let wanted: Vec<_> = segments
            .iter()
            .filter(|one| is_wanted(one))
            .cloned()
            .collect();
        let steps = plan(&wanted).await;
        let steps = steps.map_err(|error| RestoreError::of_read(&name, error))?;
        let mut files = WorkTreeFiles::new((place.work_tree.clone(), self.taking), &wanted);
        let mut index = IndexState::new(&wanted, place.work_tree.is_some());
        // The rest of the memory of a segment, its table, goes when its step and its run are done.
        drop(wanted);
        let mut progress = Progress {
            step: "restoring".to_owned(),
            done_bytes: 0,
            total_bytes: steps.iter().map(|step| step.bytes).sum(),
        };
        let parts = Arc::new((toc, index_segments(segments)));
        let mut fetched = download(steps, &self.segments.backend().tasks);
        let mut index_writer = JoinSet::new();
        while let Some(step) = fetched.next().await {
            let step = step.map_err(|error| RestoreError::of_read(&name, error))?;
            progress.done_bytes += step.bytes;
            on_progress(&progress);
            index.note(&step);
            if index.is_due() {
                let (parts, git_dir) = (Arc::clone(&parts), place.git_dir.clone());
                index_writer.spawn(async move { write_index(&parts.0, &parts.1, &git_dir).await });
            }
            files.note(&step).await?;
        }
        files.finish().await?;
        "writing the objects".clone_into(&mut progress.step);
        on_progress(&progress);
        if let Some(written) = index_writer.join_next().await {
            written.map_err(stopped)??;
        }
        let git_dir = place.git_dir.clone();
        let taking = self.taking;
        let written = spawn_blocking(move || write_objects(&objects, &git_dir, taking)).await;
        written.map_err(stopped)?
    }
}

/// Loads the newest snapshot.
async fn load(options: &RestoreOptions, segments: &Segments) -> Result<Generation, LoadError> {
    let (source, repo) = (&*segments.backend().source, &options.repo);
    let ask = |len| {
        if options.is_bare {
            source.tail(repo, ArchiveKind::Mirror, len, None)
        } else {
            current_tail(source, repo, len, None).boxed()
        }
    };
    let TailAnswer::Tail(tail) = ask(TAIL_LEN).await? else {
        let kind = ArchiveKind::Checkout;
        let url = cachewfs_format::api::stable_path(repo, kind);
        return Err(FetchError::Status { url, status: 304 }.into());
    };
    let loaded = load_toc(repo, tail, ask).await?;
    Generation::load(repo, loaded, segments, Purpose::Background).await
}

/// Returns when to ask again, if the daemon is still making the first snapshot.
fn retry_after(error: &FetchError) -> Option<Duration> {
    match error {
        FetchError::NotYet { retry_after, .. } => {
            Some((*retry_after).clamp(Duration::from_millis(200), Duration::from_secs(10)))
        }
        _ => None,
    }
}

/// Returns the segments that the index is loaded from: its parts, and the runs that belong to them.
fn index_segments(segments: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
    let is_needed = |role| is_of_index(role) || role == Role::WorkTree;
    let mut segments = segments;
    segments.retain(|segment| is_needed(segment.record().role));
    segments
}

fn stopped(error: tokio::task::JoinError) -> RestoreError {
    RestoreError::Disk(std::io::Error::other(error))
}

/// The parts of the index that are still missing, or `None` once the index is being written.
struct IndexState(Option<HashSet<SegmentId>>);

impl IndexState {
    fn new(segments: &[Arc<Segment>], has_work_tree: bool) -> Self {
        let parts = segments.iter().map(|segment| segment.record());
        let parts = parts.filter(|record| is_of_index(record.role));
        Self(has_work_tree.then(|| parts.map(|record| record.id).collect()))
    }

    /// Notes a step that is done.
    fn note(&mut self, step: &Step) {
        if let Some(missing) = &mut self.0 {
            for id in &step.completes {
                missing.remove(id);
            }
        }
    }

    /// Returns whether the index is to be written now. An empty tree has an index without parts.
    fn is_due(&mut self) -> bool {
        self.0.take_if(|missing| missing.is_empty()).is_some()
    }
}

/// The files of the work tree: the runs that are still to be written, and the writers at work.
struct WorkTreeFiles {
    root: Option<PathBuf>,
    taking: Taking,
    waiting: VecDeque<Arc<Run>>,
    complete: HashSet<SegmentId>,
    paths: PathSequence,
    writers: JoinSet<Result<(), RestoreError>>,
    max_writers: usize,
}

impl WorkTreeFiles {
    fn new((root, taking): (Option<PathBuf>, Taking), segments: &[Arc<Segment>]) -> Self {
        let waiting = if root.is_some() {
            runs(segments).into()
        } else {
            VecDeque::new()
        };
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            root,
            taking,
            waiting,
            complete: HashSet::new(),
            paths: PathSequence::default(),
            writers: JoinSet::new(),
            max_writers: processors.min(MAX_WRITERS),
        }
    }

    /// Notes a step that is done. Starts to write the runs that are complete with it.
    async fn note(&mut self, step: &Step) -> Result<(), RestoreError> {
        self.complete.extend(&step.completes);
        let is_complete = |complete: &HashSet<SegmentId>, run: &Run| {
            [Some(&run.members), run.large_file.as_ref()]
                .into_iter()
                .flatten()
                .all(|segment| complete.contains(&segment.record().id))
        };
        while let Some(run) = self.waiting.front()
            && is_complete(&self.complete, run)
            && let Some(root) = self.root.clone()
        {
            // In order: a path below another file is found before it is written.
            let checked = CheckedRun::check(run, &mut self.paths).await?;
            self.waiting.pop_front();
            while self.writers.len() >= self.max_writers {
                self.join().await?;
            }
            let taking = self.taking;
            self.writers
                .spawn_blocking(move || checked.write(&root, taking));
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<(), RestoreError> {
        match self.writers.join_next().await {
            Some(written) => written.map_err(stopped)?,
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<(), RestoreError> {
        while !self.writers.is_empty() {
            self.join().await?;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let what = "a run of the work tree is not in the archive";
        Err(RestoreError::Malformed { what })
    }
}
