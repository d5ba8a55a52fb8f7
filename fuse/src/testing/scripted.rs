//! A source of archives in memory, with faults that a test chooses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest, RefreshAnswer};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::fetch::{ArchiveSource, BodyStream, FetchError, RangeRequest, Tail, TailAnswer};
use crate::traffic::Purpose;

/// A fault of one request for a range.
#[derive(Clone, Debug)]
pub(crate) enum RangeFault {
    /// The body ends after this many bytes.
    Cut(usize),
    /// The body ends after this many bytes, as if it were whole.
    Short(usize),
    /// Nothing comes after this many bytes of the body, and it doesn't end.
    Quiet(usize),
    /// The body comes byte by byte, with a pause before each.
    Drip,
    /// The byte at this offset of the body is changed.
    Corrupt(usize),
    /// The request never ends.
    Hang,
    /// The daemon answers 503.
    Unavailable,
}

/// A state of the daemon, for requests of tails and of the list of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DaemonState {
    /// It answers.
    Well,
    /// Each request fails at once.
    Away,
    /// No request ends.
    Silent,
    /// The snapshot is ready after this many more requests.
    Preparing(usize),
    /// Upstream can't be reached, so the daemon answers with an error.
    Failing,
    /// Upstream has no such repository.
    Gone,
    /// Upstream shows the repository to others only.
    Denied,
}

/// A source with one current archive.
#[derive(Debug)]
pub(crate) struct ScriptedSource {
    state: Mutex<ScriptedState>,
}

#[derive(Debug)]
struct ScriptedState {
    archive: Bytes,
    /// Earlier archives, each with its snapshot.
    old_archives: Vec<(String, Bytes)>,
    snapshot: SnapshotId,
    etag: String,
    faults: VecDeque<RangeFault>,
    /// The requested ranges: start and length.
    requests: Vec<(u64, u64)>,
    daemon: DaemonState,
    /// The repositories whose tails were requested, and `hosts` with the purpose.
    asked: Vec<String>,
}

impl ScriptedSource {
    pub(crate) fn new(archive: Vec<u8>, snapshot: SnapshotId, etag: String) -> Arc<Self> {
        let archive = archive.into();
        let (faults, requests) = (VecDeque::new(), Vec::new());
        let state = ScriptedState {
            archive,
            old_archives: Vec::new(),
            snapshot,
            etag,
            faults,
            requests,
            daemon: DaemonState::Well,
            asked: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// Makes another archive the current one. The old one can still be read.
    pub(crate) fn publish(&self, archive: crate::testing::Archive) {
        let mut state = self.state.lock();
        let old = std::mem::replace(&mut state.archive, archive.bytes.into());
        let old_snapshot = state.snapshot.to_string();
        state.old_archives.push((old_snapshot, old));
        state.snapshot = archive.snapshot;
        state.etag = archive.etag;
    }

    /// Makes the next requests for ranges fail with these faults, one fault for each request.
    pub(crate) fn fail_with(&self, faults: impl IntoIterator<Item = RangeFault>) {
        self.state.lock().faults.extend(faults);
    }

    /// Sets the state of the daemon.
    pub(crate) fn set_daemon(&self, daemon: DaemonState) {
        self.state.lock().daemon = daemon;
    }

    /// Returns what the daemon was asked for since the last call, apart from ranges: names of
    /// repositories, and `hosts` with the purpose.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().asked)
    }

    /// Counts a request, and fails or waits as the state of the daemon says.
    async fn answer(&self, asked: &str) -> Result<(), FetchError> {
        let daemon = {
            let mut state = self.state.lock();
            state.asked.push(asked.to_owned());
            let daemon = state.daemon;
            if let DaemonState::Preparing(requests) = &mut state.daemon {
                *requests = requests.saturating_sub(1);
            }
            daemon
        };
        let (code, message) = ("scripted".to_owned(), "scripted".to_owned());
        match daemon {
            DaemonState::Well | DaemonState::Preparing(0) => Ok(()),
            DaemonState::Away => Err(FetchError::TimedOut { seconds: 0 }),
            DaemonState::Silent => std::future::pending().await,
            DaemonState::Failing => Err(FetchError::Failed { code, message }),
            DaemonState::Denied => Err(FetchError::Refused {
                code: cachewfs_format::api::code::UPSTREAM_DENIED.to_owned(),
                message,
            }),
            DaemonState::Gone => Err(FetchError::Refused {
                code: cachewfs_format::api::code::UPSTREAM_NOT_FOUND.to_owned(),
                message,
            }),
            DaemonState::Preparing(_) => Err(FetchError::NotYet {
                code,
                message,
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Returns the ranges that were requested since the last call: start and length.
    pub(crate) fn take_requests(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state.lock().requests)
    }
}

impl ArchiveSource for ScriptedSource {
    fn tail<'a>(
        &'a self,
        repo: &'a RepoName,
        kind: ArchiveKind,
        len: u64,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>> {
        Box::pin(async move {
            self.answer(repo.as_str()).await?;
            if repo.as_str() != crate::testing::REPO {
                let code = cachewfs_format::api::code::UPSTREAM_NOT_FOUND.to_owned();
                return Err(FetchError::Refused {
                    code,
                    message: "not scripted".to_owned(),
                });
            }
            let state = self.state.lock();
            if etag == Some(state.etag.as_str()) {
                return Ok(TailAnswer::Unchanged);
            }
            let archive_len = state.archive.len() as u64;
            let start = usize::try_from(archive_len.saturating_sub(len)).unwrap();
            let path = cachewfs_format::api::immutable_path(repo, kind, state.snapshot);
            Ok(TailAnswer::Tail(Tail {
                bytes: state.archive.slice(start..),
                archive_len,
                path: path.into(),
                snapshot: state.snapshot,
                etag: state.etag.clone(),
                notice: None,
            }))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<BodyStream, FetchError>> {
        let (bytes, fault) = {
            let mut state = self.state.lock();
            let range = request.range.clone();
            state.requests.push((range.start, range.end - range.start));
            let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let old = state
                .old_archives
                .iter()
                .find(|(id, _)| request.path.contains(id));
            let archive = old.map_or(&state.archive, |(_, archive)| archive);
            (archive.slice(place), state.faults.pop_front())
        };
        Box::pin(async move {
            // Lets other tasks run first, as a network does.
            sleep(Duration::from_millis(1)).await;
            let expected = bytes.len() as u64;
            let mut pieces: Vec<Result<Bytes, FetchError>> = Vec::new();
            match fault {
                None => pieces.push(Ok(bytes)),
                Some(RangeFault::Cut(at)) => {
                    pieces.push(Ok(bytes.slice(..at)));
                    let (url, received) = ("scripted".to_owned(), at as u64);
                    pieces.push(Err(FetchError::Cut {
                        url,
                        received,
                        expected,
                    }));
                }
                Some(RangeFault::Short(at)) => pieces.push(Ok(bytes.slice(..at))),
                Some(RangeFault::Quiet(at)) => {
                    let begin = stream::iter([Ok(bytes.slice(..at))]);
                    return Ok(begin.chain(stream::pending()).boxed());
                }
                Some(RangeFault::Drip) => {
                    let bytes = bytes.into_iter().map(|byte| Ok(Bytes::from(vec![byte])));
                    let pause = || sleep(Duration::from_millis(20));
                    let pieces = stream::iter(bytes).then(move |byte| pause().map(|()| byte));
                    return Ok(pieces.boxed());
                }
                Some(RangeFault::Corrupt(at)) => {
                    let mut changed = bytes.to_vec();
                    let at = at % changed.len();
                    changed[at] ^= 1;
                    pieces.push(Ok(changed.into()));
                }
                Some(RangeFault::Hang) => std::future::pending().await,
                Some(RangeFault::Unavailable) => {
                    return Err(FetchError::Status {
                        url: "scripted".to_owned(),
                        status: 503,
                    });
                }
            }
            Ok(stream::iter(pieces).boxed())
        })
    }

    fn refresh<'a>(
        &'a self,
        _repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>> {
        let snapshot = self.state.lock().snapshot;
        Box::pin(async move {
            Ok(RefreshAnswer {
                snapshot,
                moved: false,
            })
        })
    }

    fn ensure_refs<'a>(
        &'a self,
        _repo: &'a RepoName,
        _wanted: &'a EnsureRefsRequest,
    ) -> BoxFuture<'a, Result<EnsureRefsAnswer, FetchError>> {
        Box::pin(async { Err(FetchError::Ending) })
    }

    fn hosts(&self, purpose: Purpose) -> BoxFuture<'_, Result<Vec<String>, FetchError>> {
        Box::pin(async move {
            self.answer(&format!("hosts ({purpose:?})")).await?;
            Ok(vec!["host".to_owned()])
        })
    }
}
