//! The seam between what is fetched and how.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cachewfs_format::api::RefreshAnswer;
use cachewfs_format::api::code::NO_CHECKOUT;
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};
use futures_util::stream::BoxStream;

use super::FetchError;
use crate::traffic::Purpose;

/// A future that can be moved to another thread.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// The pieces of a body, as they come.
pub(crate) type BodyStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// A half-open range of bytes of an immutable archive.
#[derive(Clone, Debug)]
pub(crate) struct RangeRequest {
    /// The repository.
    pub repo: RepoName,
    /// The path of the immutable URL.
    pub path: Arc<str>,
    /// In bytes from the start of the archive.
    pub range: Range<u64>,
    /// Whether somebody waits.
    pub purpose: Purpose,
    /// Which try this is, from 0: a later one starts with another daemon.
    pub attempt: usize,
}

/// The end of an archive, with what its headers say.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The last bytes of the archive.
    pub bytes: Bytes,
    /// Length of the archive in bytes.
    pub archive_len: u64,
    /// The path of the archive's immutable URL.
    pub path: Arc<str>,
    /// The snapshot that the archive is of.
    pub snapshot: SnapshotId,
    /// Its strong `ETag`, with the quotes.
    pub etag: String,
    /// The daemon's sentence about files that the work tree lacks.
    pub notice: Option<String>,
}

/// The answer to a request for the end of the current archive.
#[derive(Clone, Debug)]
pub(crate) enum TailAnswer {
    /// The archive is still the one with the `ETag` that was given.
    Unchanged,
    /// The archive.
    Tail(Tail),
}

/// Where archives come from: daemons over HTTP, or a script in tests.
pub(crate) trait ArchiveSource: Send + Sync + fmt::Debug {
    /// Asks for the last `len` bytes of the current archive; `Unchanged` if its `ETag` is `etag`.
    fn tail<'a>(
        &'a self,
        repo: &'a RepoName,
        kind: ArchiveKind,
        len: u64,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>>;

    /// Asks for a range; the stream yields exactly its bytes, or ends with an error.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<BodyStream, FetchError>>;

    /// Notes that bytes that came are wrong, wherever they came from.
    fn note_broken(&self) {}

    /// Makes the daemon ask upstream and publish.
    fn refresh<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>>;

    /// The hosts that repositories are mirrored from.
    fn hosts(&self) -> BoxFuture<'_, Result<Vec<String>, FetchError>>;
}

/// Asks for the end of the current checkout archive, or, of a repository whose tree git would not
/// check out, of its mirror archive.
pub(crate) async fn current_tail(
    source: &dyn ArchiveSource,
    repo: &RepoName,
    len: u64,
    etag: Option<&str>,
) -> Result<TailAnswer, FetchError> {
    match source.tail(repo, ArchiveKind::Checkout, len, etag).await {
        Err(FetchError::Refused { code, .. }) if code == NO_CHECKOUT => {
            source.tail(repo, ArchiveKind::Mirror, len, etag).await
        }
        answer => answer,
    }
}
