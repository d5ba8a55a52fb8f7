//! The seam between the mount and its source of archives: daemons over HTTP, or a script in tests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cachewfs_format::api::code::NO_CHECKOUT;
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest, RefreshAnswer, RepoStatus};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::FetchError;
use crate::traffic::Purpose;

/// The pieces of a body, in order, as they arrive.
pub(crate) type BodyStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// A request for a range of an immutable archive.
#[derive(Clone, Debug)]
pub(crate) struct RangeRequest {
    /// The repository.
    pub repo: RepoName,
    /// The path of the archive's immutable URL.
    pub path: Arc<str>,
    /// Half-open, in bytes from the start of the archive.
    pub range: Range<u64>,
    /// Whether a reader waits for the bytes.
    pub purpose: Purpose,
    /// The number of earlier attempts. Each attempt starts with another daemon.
    pub attempt: usize,
}

/// The end of an archive, with the values of the answer's headers.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The last bytes of the archive.
    pub bytes: Bytes,
    /// Length of the archive in bytes.
    pub archive_len: u64,
    /// The path of the archive's immutable URL.
    pub path: Arc<str>,
    /// The snapshot that the archive belongs to.
    pub snapshot: SnapshotId,
    /// The strong `ETag` of the archive, with its quotes.
    pub etag: String,
    /// The daemon's notice about files that the work tree lacks.
    pub notice: Option<String>,
}

/// The answer to a request for the end of the current archive.
#[derive(Clone, Debug)]
pub(crate) enum TailAnswer {
    /// The current archive still has the `ETag` of the request.
    Unchanged,
    /// The end of the current archive.
    Tail(Tail),
}

/// A source of archives.
pub(crate) trait ArchiveSource: Send + Sync + fmt::Debug {
    /// Requests the last `len` bytes of the current archive.
    ///
    /// Returns `Unchanged` if the archive's `ETag` is `etag`.
    fn tail<'a>(
        &'a self,
        repo: &'a RepoName,
        kind: ArchiveKind,
        len: u64,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>>;

    /// Requests a range. The stream yields exactly its bytes, or ends with an error.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<BodyStream, FetchError>>;

    /// Notes that verification found wrong bytes among those that this source sent.
    fn note_broken(&self) {}

    /// Makes the daemon fetch from upstream and publish.
    fn refresh<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>>;

    /// Makes the daemon look for refs and commits in its mirror, and fetch them from upstream if
    /// they aren't there.
    fn ensure_refs<'a>(
        &'a self,
        repo: &'a RepoName,
        wanted: &'a EnsureRefsRequest,
    ) -> BoxFuture<'a, Result<EnsureRefsAnswer, FetchError>>;

    /// Requests the state of a repository in the daemon. A source may know none.
    fn state<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<Option<RepoStatus>, FetchError>> {
        let _ = repo;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Requests the list of hosts that repositories are mirrored from.
    fn hosts(&self, purpose: Purpose) -> BoxFuture<'_, Result<Vec<String>, FetchError>>;
}

/// Requests the end of the current checkout archive or, if the repository has none, of the mirror
/// archive.
///
/// A repository has no checkout archive if git can't check out its tree.
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
