//! A request for an archive that is not published yet: the archive as it is built.
//!
//! Who wants the beginning is answered 200 and kept waiting with zstd skippable frames, which
//! decompressors pass over; then comes each segment as soon as the build has placed it, and what is
//! left when it is published. All who ask wait for one build, which belongs to the repository's task.
//! Who wants a part, as a mount does, is told to ask again.

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

use super::body::read_block;
use super::error::ApiError;
use super::pin::Pin;
use super::published::{self, Published};
use super::range::{self, Wanted};
use super::routes::App;
use super::snapshots::{self, Request};
use crate::error_chain::chain;
use crate::publish::FedSegments;
use crate::repository::{MirrorState, Repository, RepositoryError, Status};
use crate::store::Archive;

/// How long to wait for the fate of a build before answering 200, which can't be taken back: a name
/// with a typo gets 404, and a small repository a complete answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Proxies and clients take a connection for dead after a minute, some after ten seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A skippable frame without content (RFC 8878 section 3.1.2), with a magic number that archives
/// don't use.
const KEEP_ALIVE_FRAME: &[u8] = b"\x50\x2A\x4D\x18\0\0\0\0";

/// Answers while nothing is published. `status` is from before that was found.
pub(super) async fn miss(
    app: Arc<App>,
    request: Request,
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
        let may_try_again = request.method == Method::GET && !failure.holds_mirror_back();
        if may_try_again {
            repository.revalidate();
        }
        // Without a mirror trying again is a run of the task, which is due and can be waited for.
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
    // RFC 9110 section 13.1.1: there is nothing that it could match.
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
    match timeout(PATIENCE, build.end()).await {
        Ok(published) => {
            let published = published?.ok_or_else(|| not_ready(&repo, &status))?;
            Ok(snapshots::answer_stable(&app, &request, &published))
        }
        Err(_) => Ok(stream(build)),
    }
}

/// Whether a client that asks for this can use a stream from the beginning. A client of HTTP/1.0
/// couldn't tell one that broke from one that ended.
pub(super) fn wants_stream(request: &Request) -> bool {
    let value = request.headers.get(header::RANGE);
    let wanted = value.map_or(Wanted::All, |value| {
        range::parse(value.to_str().unwrap_or_default(), u64::MAX)
    });
    let starts_at_0 = match wanted {
        Wanted::All => true,
        Wanted::Part(part) => part.start == 0,
        Wanted::Unsatisfiable => false,
    };
    starts_at_0 && request.version > Version::HTTP_10 && Pin::of(&request.headers) == Pin::Absent
}

/// The first publish of a repository, as those see it who wait for it.
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

    /// Waits until the run of the repository's task ends that publishes, or fails to.
    async fn end(&self) -> Result<Option<Published>, ApiError> {
        let status = tokio::select! {
            status = self.repository.status_when(|status| self.has_ended(status)) => status,
            () = self.app.registry.stopping() => return Err(RepositoryError::Stopping.into()),
        };
        let (app, repo) = (Arc::clone(&self.app), self.repository.name().clone());
        let (kind, first) = (self.kind, status.first_snapshot);
        let find = move || {
            // Another may be current by the time that a slow client has got here.
            if let Some(first) = first
                && let Some(published) = published::of_snapshot(&app, &repo, (first, kind))?
            {
                return Ok(Some(published));
            }
            published::current(&app, &repo, kind)
        };
        match (tokio::task::spawn_blocking(find).await??, status.failure) {
            // Another daemon may have published, and this one failed.
            (None, Some(failure)) => Err(failure.error.into()),
            (published, _) => Ok(published),
        }
    }
}

/// A build, and what of its archive was sent.
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

    /// The next segment, and how long it is; `None` if it isn't there yet, or all are published.
    async fn next_segment(&mut self) -> Result<Option<(SegmentBytes, u64)>, ApiError> {
        let next = {
            let fed = self.fed.borrow_and_update();
            let segments = fed.get(&self.build.kind);
            segments.and_then(|segments| segments.get(self.sent.len()).cloned())
        };
        let Some(next) = next else { return Ok(None) };
        // Looked at after the feed: what is fed after this run belongs to another build.
        if self.build.has_ended(&self.build.repository.status()) {
            return Ok(None);
        }
        let segment = next.segment;
        let file = tokio::task::spawn_blocking(move || next.open()).await?;
        let source = if let Ok(file) = file {
            SegmentBytes::File(Arc::new(file))
        } else {
            // It is in the store by now, or the build has failed.
            let store = self.build.app.store.clone();
            let repo = self.build.repository.name().clone();
            SegmentBytes::Store(Arc::new(Archive::of_segment(store, repo, segment)))
        };
        self.sent.push(segment);
        Ok(Some((source, segment.len)))
    }

    /// What follows the segments that were sent.
    fn rest(&self, published: &Published) -> Result<Range<u64>, ApiError> {
        // Another daemon may have published another archive.
        if !published.archive.starts_with(&self.sent) {
            let repo = self.build.repository.name().clone();
            return Err(ApiError::NoSuchSnapshot { repo });
        }
        let sent: u64 = self.sent.iter().map(|segment| segment.len).sum();
        Ok(sent..published.size)
    }
}

/// Where the bytes of a segment are.
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

enum Progress {
    Begun(Build),
    Building(Follower),
    /// In the middle of a segment: what is left of it.
    Segment(Follower, SegmentBytes, Range<u64>),
    Published(Arc<Archive>, Range<u64>),
}

fn stream(build: Build) -> Response {
    let body = stream::try_unfold(Progress::Begun(build), |progress| async {
        match next(progress).await {
            Ok(next) => Ok(next),
            // The status is sent: all that is left is to break the connection. Why a build failed is
            // logged by the repository's task.
            Err(error @ ApiError::Repository(_)) => Err(std::io::Error::other(error)),
            Err(error) => {
                warn!(error = chain(&error), "A stream of an archive broke");
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
