//! A request for an archive that is not published yet: streams the archive while it is built.
//!
//! A client that reads from the beginning gets 200, and zstd skippable frames, which decompressors
//! ignore, while it waits. Then it gets each segment as soon as the build has placed it, and after
//! the publish the rest of the archive:
//!
//! ```text
//! 0 s       up to 3 s                    build places segments        published
//! request ──► 404, 502, … or 200 ─ frames ─► segment ─► segment ─► … ─► rest, from the store
//! ```
//!
//! All clients follow the same build, which belongs to the repository's task and not to a request.
//! A client that wants another part, such as a mount, gets 503 and retries.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use cachewfs_format::{ArchiveKind, RepoName, SegmentRef};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::app::App;
use super::archive_answer::answer_stable;
use super::body::read_block;
use super::catalog::PublishedArchive;
use super::error::ApiError;
use super::pin::Pin;
use super::range::{self, RequestedRange};
use super::request::ArchiveRequest;
use crate::base::chain;
use crate::publish::FedSegments;
use crate::repository::{MirrorState, Repository, RepositoryError, Status};
use crate::store::Archive;

/// How long a request waits for the end of a build before the answer is 200, which can't be taken
/// back. Until then, a mistyped name gets 404 and a small repository a complete answer.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(3);
/// How often a frame is sent while nothing else is. Proxies and clients close a silent connection
/// after a minute, some of them after ten seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// An empty skippable frame (RFC 8878 section 3.1.2), with a magic number that archives don't use.
const KEEP_ALIVE_FRAME: &[u8] = b"\x50\x2A\x4D\x18\0\0\0\0";

/// Answers a request for an archive of a repository without a snapshot. `status` was read before
/// the store, so that a publish in between is not missed.
pub(super) async fn miss(
    app: Arc<App>,
    request: ArchiveRequest,
    (repository, status): (Arc<Repository>, Status),
    kind: ArchiveKind,
) -> Result<Response, ApiError> {
    let repo = request.repo.clone();
    let not_ready = |repo: &RepoName, status: &Status| ApiError::NotReady {
        repo: repo.clone(),
        state: status.state.as_str(),
    };
    if let Some(failure) = &status.failure
        && let error @ (RepositoryError::Mirror(_) | RepositoryError::Publish(_)) = &failure.error
    {
        let may_try_again = request.method == Method::GET && !failure.blocks_update();
        if may_try_again {
            repository.revalidate();
        }
        // Without a mirror, the retry is a run of the task, which is due now and can be waited for.
        let is_worth_waiting = may_try_again
            && matches!(error, RepositoryError::Mirror(_))
            && status.state != MirrorState::Ready
            && !error.is_not_found()
            && wants_stream(&request);
        if !is_worth_waiting {
            return Err(error.clone().into());
        }
    }
    if request.method != Method::GET {
        return Err(ApiError::NoSnapshot { repo });
    }
    // RFC 9110 section 13.1.1: without a current archive, no tag and not even `*` matches.
    if request.headers.contains_key(header::IF_MATCH) {
        return Err(ApiError::PreconditionFailed);
    }
    if !wants_stream(&request) {
        return Err(not_ready(&repo, &status));
    }
    let build = Build {
        app: Arc::clone(&app),
        repository,
        kind,
        runs_before: status.runs,
    };
    match timeout(MAX_WAIT, build.end()).await {
        Ok(published) => {
            let published = published?.ok_or_else(|| not_ready(&repo, &status))?;
            Ok(answer_stable(&app, &request, &published))
        }
        Err(_) => Ok(stream(build)),
    }
}

/// Returns whether the client can use a stream from the beginning. HTTP/1.0 has no chunks, so a
/// client couldn't tell an interrupted stream from a complete one.
pub(super) fn wants_stream(request: &ArchiveRequest) -> bool {
    let value = request.headers.get(header::RANGE);
    let wanted = value.map_or(RequestedRange::All, |value| {
        range::parse(value.to_str().unwrap_or_default(), u64::MAX)
    });
    let starts_at_0 = match wanted {
        RequestedRange::All => true,
        RequestedRange::Part(part) => part.start == 0,
        RequestedRange::Unsatisfiable => false,
    };
    starts_at_0 && request.version > Version::HTTP_10 && Pin::of(&request.headers) == Pin::Absent
}

/// The first publish of a repository, from the view of a request that waits for it.
struct Build {
    app: Arc<App>,
    repository: Arc<Repository>,
    kind: ArchiveKind,
    runs_before: u64,
}

impl Build {
    fn has_ended(&self, status: &Status) -> bool {
        status.runs > self.runs_before
    }

    /// Waits for the end of the run that publishes or fails. Returns the published archive, or
    /// `None` if there is none and the run had no error.
    async fn end(&self) -> Result<Option<PublishedArchive>, ApiError> {
        let status = tokio::select! {
            status = self.repository.status_when(|status| self.has_ended(status)) => status,
            () = self.app.context.stop.cancelled() => return Err(RepositoryError::Stopping.into()),
        };
        let (catalog, repo, kind) = (&self.app.catalog, self.repository.name(), self.kind);
        // A slow client may get here when a later snapshot is current. It needs the one whose
        // segments it has received.
        let of_first = match status.first_snapshot {
            Some(first) => catalog.of_snapshot(repo, (first, kind)).await?,
            None => None,
        };
        let found = match of_first {
            Some(published) => Some(published),
            None => catalog.current(repo, kind).await?,
        };
        match (found, status.failure) {
            // Only without an archive: another daemon may have published although this run failed.
            (None, Some(failure)) => Err(failure.error.into()),
            (published, _) => Ok(published),
        }
    }
}

/// A build, and the segments of its archive that were sent.
struct Follower {
    build: Build,
    fed: watch::Receiver<FedSegments>,
    sent: Vec<SegmentRef>,
}

impl Follower {
    fn of(build: Build) -> Self {
        Self {
            fed: build.repository.feed.subscribe(),
            build,
            sent: Vec::new(),
        }
    }

    /// Returns the next segment and its length, or `None` if it isn't placed yet or the build has
    /// ended.
    async fn next_segment(&mut self) -> Result<Option<(SegmentBytes, u64)>, ApiError> {
        let next = {
            let fed = self.fed.borrow_and_update();
            let segments = fed.get(&self.build.kind);
            segments.and_then(|segments| segments.get(self.sent.len()).cloned())
        };
        let Some(next) = next else { return Ok(None) };
        // Checked after the feed was read: segments that are placed after this run belong to
        // another build, and must not follow those that were sent.
        if self.build.has_ended(&self.build.repository.status()) {
            return Ok(None);
        }
        let segment = next.segment;
        let file = tokio::task::spawn_blocking(move || next.open()).await?;
        let source = if let Ok(file) = file {
            SegmentBytes::File(Arc::new(file))
        } else {
            // The file was moved into the store meanwhile, or deleted because the build failed. In
            // the second case, reading from the store fails too.
            let store = self.build.app.store.clone();
            let repo = self.build.repository.name().clone();
            SegmentBytes::Store(Arc::new(Archive::of_segment(store, repo, segment)))
        };
        self.sent.push(segment);
        Ok(Some((source, segment.len)))
    }

    /// Returns the range of the archive after the segments that were sent.
    fn rest(&self, published: &PublishedArchive) -> Result<Range<u64>, ApiError> {
        // Another daemon may have won with a different archive. The bytes sent so far are no part
        // of it, so the connection must break.
        if !published.archive.starts_with(&self.sent) {
            let repo = self.build.repository.name().clone();
            return Err(ApiError::NoSuchSnapshot { repo });
        }
        let sent: u64 = self.sent.iter().map(|segment| segment.len).sum();
        Ok(sent..published.size)
    }
}

/// The source of the bytes of a segment.
#[derive(Clone)]
enum SegmentBytes {
    File(Arc<File>),
    Store(Arc<Archive>),
}

impl SegmentBytes {
    async fn read(&self, range: Range<u64>) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
        match self {
            Self::File(file) => read_block(file, range).await,
            Self::Store(segment) => read_block(segment, range).await,
        }
    }
}

/// The state of a stream.
enum Progress {
    Begun(Build),
    Building(Follower),
    /// In the middle of a segment; the range is not sent yet.
    Segment(Follower, SegmentBytes, Range<u64>),
    Published(Arc<Archive>, Range<u64>),
}

fn stream(build: Build) -> Response {
    let body = stream::try_unfold(Progress::Begun(build), |progress| async {
        match next(progress).await {
            Ok(next) => Ok(next),
            // The status is already sent, so the only way to report an error is to break the
            // connection. The repository's task logs why a build failed.
            Err(error @ ApiError::Repository(_)) => Err(std::io::Error::other(error)),
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "Streaming an archive that is being built failed"
                );
                Err(std::io::Error::other(error))
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/zstd"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::OK, headers, Body::from_stream(body)).into_response()
}

async fn next(mut progress: Progress) -> Result<Option<(Bytes, Progress)>, ApiError> {
    let keep_alive = Bytes::from_static(KEEP_ALIVE_FRAME);
    loop {
        progress = match progress {
            Progress::Begun(build) => {
                return Ok(Some((keep_alive, Progress::Building(Follower::of(build)))));
            }
            Progress::Building(mut follower) => {
                if let Some((source, len)) = follower.next_segment().await? {
                    Progress::Segment(follower, source, 0..len)
                } else {
                    let published = tokio::select! {
                        published = follower.build.end() => Some(published?),
                        Ok(()) = follower.fed.changed() => None,
                        () = sleep(KEEP_ALIVE) => {
                            return Ok(Some((keep_alive, Progress::Building(follower))));
                        }
                    };
                    match published {
                        Some(Some(published)) => {
                            let rest = follower.rest(&published)?;
                            Progress::Published(published.archive, rest)
                        }
                        Some(None) => {
                            let repo = follower.build.repository.name().clone();
                            return Err(ApiError::NoSnapshot { repo });
                        }
                        None => Progress::Building(follower),
                    }
                }
            }
            Progress::Segment(follower, source, range) => match source.read(range).await? {
                Some((bytes, rest)) => {
                    return Ok(Some((bytes, Progress::Segment(follower, source, rest))));
                }
                None => Progress::Building(follower),
            },
            Progress::Published(archive, range) => {
                let block = read_block(&archive, range).await?;
                return Ok(block.map(|(bytes, rest)| (bytes, Progress::Published(archive, rest))));
            }
        };
    }
}
