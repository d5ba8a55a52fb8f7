//! [`Restore`]: one snapshot, from the first request to the last file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{ArchiveKind, GitHead, RepoName, SnapshotId};
use futures_util::FutureExt as _;
use tokio::task::spawn_blocking;

use super::RestoreError;
use super::tree_writer::Taking;
use super::wanted::wait_for;
use crate::fetch::{FetchError, OneArchive, TailAnswer, current_tail};
use crate::mount::{open_cache, open_segments};
use crate::options::MountOptions;
use crate::report::TrafficReport;
use crate::repository::{TAIL_LEN, load_toc};
use crate::segment::{Backend, Segments};
use crate::tasks::Tasks;
use crate::traffic::{Purpose, Traffic};
use crate::view::{FileContent, Generation, LoadError, StaticNode};

/// The options of a restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The repository.
    pub repo: RepoName,
    /// The base URLs of the daemons. If one fails, the next is asked.
    pub daemons: Vec<String>,
    /// An archive in a file or at a URL, which is restored instead of the newest snapshot.
    pub from: Option<String>,
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
        let segments = match &options.from {
            Some(from) => open_archive(from, options, &backend).await?,
            None => open_segments(&backend).await?,
        };
        let segments = Arc::new(segments);
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

    /// Ends the restore: stops its tasks, and brings a shared cache below its limit. Returns the
    /// counts of requests and bytes.
    pub async fn finish(self) -> Result<TrafficReport, RestoreError> {
        self.segments.backend().tasks.end_all().await;
        let traffic = self.traffic();
        let Self {
            segments,
            generation,
            taking,
        } = self;
        if taking == Taking::Copy {
            // Only now: until here, the restore needed its segments.
            drop(generation);
            spawn_blocking(move || segments.evict())
                .await
                .map_err(stopped)?;
        }
        Ok(traffic)
    }

    pub(super) fn generation(&self) -> &Generation {
        &self.generation
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.segments.backend().tasks
    }

    pub(super) fn taking(&self) -> Taking {
        self.taking
    }
}

/// Opens a single archive as the source of segments.
async fn open_archive(
    from: &str,
    options: &RestoreOptions,
    backend: &MountOptions,
) -> Result<Segments, RestoreError> {
    let cache = open_cache(backend).await?;
    let traffic = Arc::new(Traffic::default());
    let copy = options.cache_dir.join("archive.tar.zst");
    let source = OneArchive::open(from, &copy, Arc::clone(&traffic)).await;
    let source =
        source.map_err(|error| RestoreError::of_load(options.repo.as_str(), error.into()))?;
    let timeout = backend.read_timeout;
    let backend = Backend::new(Arc::new(source), cache, traffic, timeout);
    Ok(Segments::new(Arc::new(backend)))
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

pub(super) fn stopped(error: tokio::task::JoinError) -> RestoreError {
    RestoreError::Disk(std::io::Error::other(error))
}
