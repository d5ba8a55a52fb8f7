//! [`OneArchive`]: an archive in a file, or at a URL of any web server.
//!
//! Such a place has no pointer and no `ETag` of ours, so the archive describes itself: the digest
//! of its TOC is computed here, and everything else is verified against the TOC.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest, RefreshAnswer};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId, Toc, TocLocation};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::RANGE;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

use super::answer::{exactly, total_len};
use super::clients::build;
use super::{ArchiveSource, BodyStream, FetchError, RangeRequest, Tail, TailAnswer};
use crate::traffic::{Purpose, Traffic};

/// The length of the first request for the end of the archive, in bytes.
const TAIL_LEN: u64 = 64 << 10;
/// At most this many requests are made to find the TOC, as its format promises.
const MAX_TRIES: usize = 3;
/// After this many wrong answers, a web server is not asked again. A file is read once.
const MAX_BROKEN: usize = 32;
/// At most this many bytes of a file are in memory at once.
const PIECE_LEN: u64 = 1 << 20;

/// A source with one archive.
#[derive(Debug)]
pub(crate) struct OneArchive {
    place: Place,
    len: u64,
    path: Arc<str>,
    etag: String,
    snapshot: SnapshotId,
    traffic: Arc<Traffic>,
    /// How often verification found wrong bytes.
    broken: AtomicUsize,
}

#[derive(Debug)]
enum Place {
    File(Arc<File>),
    /// A web server that answers requests for ranges.
    Web(Client),
}

impl OneArchive {
    /// Finds the TOC of the archive at `from`, a path or a URL. A server without ranges sends all
    /// of it into the file `copy`.
    pub(crate) async fn open(
        from: &str,
        copy: &Path,
        traffic: Arc<Traffic>,
    ) -> Result<Self, FetchError> {
        let (place, len) = if is_url(from) {
            open_url(from, copy, &traffic).await?
        } else {
            open_file(Path::new(from)).map_err(|error| file_error(from, &error))?
        };
        let mut archive = Self {
            place,
            len,
            path: from.into(),
            etag: String::new(),
            snapshot: SnapshotId::parse(&"0".repeat(40)).map_err(|error| broken(from, error))?,
            traffic,
            broken: AtomicUsize::new(0),
        };
        let mut tail_len = TAIL_LEN;
        for _ in 0..MAX_TRIES {
            let tail = archive.end(tail_len).await?;
            match Toc::locate(&tail, len).map_err(|error| broken(from, error))? {
                TocLocation::NeedsTail(needed) => tail_len = needed,
                TocLocation::Found(at) => {
                    let toc = tail.get(at).unwrap_or_default();
                    let (digest, toc) = Toc::decode(toc).map_err(|error| broken(from, error))?;
                    archive.etag = format!("\"{digest}\"");
                    let snapshot = SnapshotId::parse(&toc.commit.to_string());
                    archive.snapshot = snapshot.map_err(|error| broken(from, error))?;
                    return Ok(archive);
                }
            }
        }
        let section = "TOC";
        Err(broken(from, cachewfs_format::Error::Truncated { section }))
    }

    /// Reads the last `len` bytes.
    async fn end(&self, len: u64) -> Result<Bytes, FetchError> {
        let range = self.len.saturating_sub(len)..self.len;
        let pieces = self.pieces(range, Purpose::Background).await?;
        let pieces: Vec<Bytes> = pieces.try_collect().await?;
        Ok(pieces.concat().into())
    }

    async fn pieces(&self, range: Range<u64>, purpose: Purpose) -> Result<BodyStream, FetchError> {
        let expected = range.end.saturating_sub(range.start);
        match &self.place {
            Place::File(file) => {
                let (file, path) = (Arc::clone(file), Arc::clone(&self.path));
                let starts =
                    (range.start..range.end).step_by(usize::try_from(PIECE_LEN).unwrap_or(1));
                let pieces = stream::iter(starts).then(move |start| {
                    let piece = start..range.end.min(start + PIECE_LEN);
                    read_piece(Arc::clone(&file), piece, Arc::clone(&path))
                });
                Ok(pieces.boxed())
            }
            Place::Web(client) => {
                let url = self.path.to_string();
                let meter = self.traffic.meter(None, purpose);
                meter.count_request();
                let last = range.end.saturating_sub(1);
                let value = format!("bytes={}-{last}", range.start);
                let response = send(client, &url, value).await?;
                if response.status() != StatusCode::PARTIAL_CONTENT
                    || total_len(&response) != Some(self.len)
                {
                    let status = response.status().as_u16();
                    return Err(FetchError::Status { url, status });
                }
                let server = url.clone();
                let pieces = response
                    .bytes_stream()
                    .map_err(move |source| unreachable(&server, source))
                    .inspect_ok(move |piece| meter.count_bytes(piece.len()));
                Ok(exactly(pieces.boxed(), expected, url))
            }
        }
    }
}

impl ArchiveSource for OneArchive {
    fn tail<'a>(
        &'a self,
        _: &'a RepoName,
        _: ArchiveKind,
        len: u64,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>> {
        async move {
            Ok(TailAnswer::Tail(Tail {
                bytes: self.end(len).await?,
                archive_len: self.len,
                path: Arc::clone(&self.path),
                snapshot: self.snapshot,
                etag: self.etag.clone(),
                notice: None,
            }))
        }
        .boxed()
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<BodyStream, FetchError>> {
        async move {
            let max = match self.place {
                Place::File(_) => 1,
                Place::Web(_) => MAX_BROKEN,
            };
            if self.broken.load(Ordering::Relaxed) >= max {
                return Err(FetchError::Refused {
                    code: "archive".to_owned(),
                    message: format!("{} has wrong bytes", self.path),
                });
            }
            self.pieces(request.range, request.purpose).await
        }
        .boxed()
    }

    fn note_broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    fn refresh<'a>(&'a self, _: &'a RepoName) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>> {
        async { Err(FetchError::Ending) }.boxed()
    }

    fn ensure_refs<'a>(
        &'a self,
        _: &'a RepoName,
        _: &'a EnsureRefsRequest,
    ) -> BoxFuture<'a, Result<EnsureRefsAnswer, FetchError>> {
        async { Err(FetchError::Ending) }.boxed()
    }

    fn hosts(&self, _: Purpose) -> BoxFuture<'_, Result<Vec<String>, FetchError>> {
        async { Err(FetchError::Ending) }.boxed()
    }
}

fn is_url(from: &str) -> bool {
    from.starts_with("http://") || from.starts_with("https://")
}

fn open_file(path: &Path) -> io::Result<(Place, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok((Place::File(Arc::new(file)), len))
}

async fn open_url(
    url: &str,
    copy: &Path,
    traffic: &Arc<Traffic>,
) -> Result<(Place, u64), FetchError> {
    let client = build(|builder| builder.redirect(Policy::default()));
    let client = client.map_err(|source| unreachable(url, source))?;
    let meter = traffic.meter(None, Purpose::Background);
    meter.count_request();
    let response = send(&client, url, format!("bytes=-{TAIL_LEN}")).await?;
    match (response.status(), total_len(&response)) {
        (StatusCode::PARTIAL_CONTENT, Some(len)) => Ok((Place::Web(client), len)),
        (StatusCode::OK, _) => {
            let failed = |error: io::Error| file_error(&copy.display().to_string(), &error);
            let mut file = tokio::fs::File::create(copy).await.map_err(failed)?;
            let mut pieces = response.bytes_stream();
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|source| unreachable(url, source))?;
                meter.count_bytes(piece.len());
                file.write_all(&piece).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)?;
            let opened = open_file(copy).map_err(failed)?;
            // The open file keeps the bytes, and nothing is left when this process ends.
            std::fs::remove_file(copy).map_err(failed)?;
            Ok(opened)
        }
        (status, _) => Err(FetchError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
        }),
    }
}

async fn send(client: &Client, url: &str, range: String) -> Result<Response, FetchError> {
    let sent = client.get(url).header(RANGE, range).send().await;
    sent.map_err(|source| unreachable(url, source))
}

async fn read_piece(
    file: Arc<File>,
    range: Range<u64>,
    path: Arc<str>,
) -> Result<Bytes, FetchError> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    let read = spawn_blocking(move || {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(Bytes::from(bytes))
    });
    let read = read.await.map_err(io::Error::other).and_then(|read| read);
    read.map_err(|error| file_error(&path, &error))
}

fn unreachable(url: &str, source: reqwest::Error) -> FetchError {
    FetchError::Unreachable {
        daemon: url.to_owned(),
        source: source.without_url().into(),
    }
}

fn file_error(path: &str, error: &io::Error) -> FetchError {
    FetchError::Refused {
        code: "file".to_owned(),
        message: format!("can't read {path}: {error}"),
    }
}

fn broken(url: &str, source: cachewfs_format::Error) -> FetchError {
    FetchError::Broken {
        url: url.to_owned(),
        source,
    }
}
