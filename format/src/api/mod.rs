//! The HTTP API of the daemon: the paths, headers and JSON types that it shares with clients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod repos;

pub use repos::{
    FailureStatus, JobClass, JobStatus, LfsStatus, MirrorState, PublishedLfs, PublishedStatus,
    RefsStatus, RepoDetail, RepoList, RepoOverview, RepoStatus, SnapshotStatus,
};

use crate::{ArchiveKind, ObjectId, RepoName, SnapshotId};

/// `X-Cachew-Snapshot-Commit`: the commit of HEAD of the served snapshot.
pub const SNAPSHOT_COMMIT_HEADER: &str = "x-cachew-snapshot-commit";
/// `X-Cachew-Bundle-Url`: the URL of a bundle that brings the served snapshot up to date.
pub const BUNDLE_URL_HEADER: &str = "x-cachew-bundle-url";
/// `X-Cachew-Snapshot-Pin`: a token of a snapshot. A client gets it from the daemon, and sends it
/// with each range request, so that all ranges are of one snapshot.
pub const SNAPSHOT_PIN_HEADER: &str = "x-cachew-snapshot-pin";
/// `X-Cachewfs-Direct: 1`: the client accepts a redirect (307) to the bucket for a range.
pub const DIRECT_HEADER: &str = "x-cachewfs-direct";
/// `X-Cachewfs-Direct-Range`: the `Range` to request from the bucket. It differs from the `Range`
/// of the client's request, because the bucket has segments and not the archive.
pub const DIRECT_RANGE_HEADER: &str = "x-cachewfs-direct-range";

/// `X-Cachewfs-Notice`: a sentence about files that the snapshot's work tree doesn't have, in
/// printable ASCII.
pub const NOTICE_HEADER: &str = "x-cachewfs-notice";

/// Returns the path of the stable URL of an archive, which always serves the current snapshot.
pub fn stable_path(repo: &RepoName, kind: ArchiveKind) -> String {
    format!("/git/{repo}/{}.tar.zst", file_stem(kind))
}

/// Returns the path of the immutable URL of an archive. It serves one snapshot for ever, or 404
/// once that is deleted.
pub fn immutable_path(repo: &RepoName, kind: ArchiveKind, snapshot: SnapshotId) -> String {
    format!("/git/{repo}/{}/{snapshot}.tar.zst", file_stem(kind))
}

/// Returns the path of a refresh: a `POST` makes the daemon fetch from upstream and publish.
pub fn refresh_path(repo: &RepoName) -> String {
    format!("/git/{repo}/refresh")
}

/// Returns the path and query of a bundle that brings a clone at the commit `base` up to date.
pub fn bundle_path(repo: &RepoName, base: ObjectId) -> String {
    format!("/git/{repo}/snapshot.bundle?base={base}")
}

/// Returns the path for an [`EnsureRefsRequest`]: a `POST` makes the mirror fetch the refs and
/// commits that it names.
pub fn ensure_refs_path(repo: &RepoName) -> String {
    format!("/git/{repo}/ensure-refs")
}

/// Returns the path of the [`RepoDetail`] of a repository.
pub fn repo_path(repo: &RepoName) -> String {
    format!("/api/v1/repos/{repo}")
}

/// The path of the [`RepoList`].
pub const REPOS_PATH: &str = "/api/v1/repos";

const fn file_stem(kind: ArchiveKind) -> &'static str {
    match kind {
        ArchiveKind::Mirror => "mirror",
        ArchiveKind::Checkout => "snapshot",
        ArchiveKind::Lfs => "lfs-snapshot",
    }
}

/// Returns the kind of archive whose URLs are `<stem>.tar.zst` and `<stem>/<snapshot>.tar.zst`, or
/// `None` if no kind has this stem.
pub fn kind_of_stem(stem: &str) -> Option<ArchiveKind> {
    let mut kinds = ArchiveKind::ALL.iter().copied();
    kinds.find(|&kind| file_stem(kind) == stem)
}

/// The body of every error response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// The reason why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A stable code for programs: one of [`code`].
    pub code: String,
    /// A sentence for people, with the next step where there is one.
    pub message: String,
}

/// The stable codes of errors: all of them. `docs/http-api.md` says what to do about each.
pub mod code {
    /// The first snapshot isn't published yet, but is being prepared. The client should retry.
    pub const SNAPSHOT_NOT_READY: &str = "snapshot_not_ready";
    /// There is no such snapshot.
    pub const NO_SNAPSHOT: &str = "no_snapshot";
    /// Upstream has no such repository, or hides it from the daemon.
    pub const UPSTREAM_NOT_FOUND: &str = "upstream_not_found";
    /// Upstream has the repository under another name.
    pub const UPSTREAM_MOVED: &str = "upstream_moved";
    /// Upstream redirects to a URL that is no repository below its base URL.
    pub const UPSTREAM_REDIRECTS: &str = "upstream_redirects";
    /// Upstream doesn't let the daemon read the repository.
    pub const UPSTREAM_DENIED: &str = "upstream_denied";
    /// Upstream can't be reached.
    pub const UPSTREAM_UNREACHABLE: &str = "upstream_unreachable";
    /// Upstream didn't answer before the timeout.
    pub const UPSTREAM_TIMEOUT: &str = "upstream_timeout";
    /// The daemon's disk is full.
    pub const DISK_FULL: &str = "disk_full";
    /// The fetch from upstream failed for another reason.
    pub const UPSTREAM_FAILED: &str = "upstream_failed";
    /// Upstream is a shallow clone, which doesn't have its whole history.
    pub const UPSTREAM_SHALLOW: &str = "upstream_shallow";
    /// The repository has no commits.
    pub const REPOSITORY_EMPTY: &str = "repository_empty";
    /// The tree of HEAD can't be checked out, so the snapshot has only a mirror archive.
    pub const NO_CHECKOUT: &str = "no_checkout";
    /// No file of HEAD's tree is stored with Git LFS.
    pub const NO_LFS: &str = "no_lfs";
    /// The configuration has `lfs = "off"`, so the daemon fetches no LFS objects.
    pub const LFS_UNAVAILABLE: &str = "lfs_unavailable";
    /// The LFS objects couldn't be fetched, or don't match their ids in the repository.
    pub const LFS_FAILED: &str = "lfs_failed";
    /// The request has no token where the daemon requires one, or an unknown token.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// The daemon's policy doesn't allow the request.
    pub const FORBIDDEN: &str = "forbidden";
    /// The host of the repository isn't configured.
    pub const UNKNOWN_HOST: &str = "unknown_host";
    /// The URL has no valid name of a repository.
    pub const BAD_REPO_NAME: &str = "bad_repo_name";
    /// The URL has no valid id of a snapshot.
    pub const BAD_SNAPSHOT_ID: &str = "bad_snapshot_id";
    /// The body or the query of the request is malformed.
    pub const BAD_REQUEST: &str = "bad_request";
    /// The repository doesn't have the base commit of a requested bundle.
    pub const UNKNOWN_BASE: &str = "unknown_base";
    /// The body of the request is too large.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
    /// The body of the request inflates to many times its length.
    pub const BODY_INFLATES: &str = "body_inflates";
    /// The body of the request did not arrive in time.
    pub const BODY_TOO_SLOW: &str = "body_too_slow";
    /// The body of the request broke off, or can't be decompressed.
    pub const BAD_BODY: &str = "bad_body";
    /// The body of the request has a type or an encoding that git doesn't send.
    pub const UNSUPPORTED_BODY: &str = "unsupported_body";
    /// The header `Git-Protocol` is malformed.
    pub const BAD_GIT_PROTOCOL: &str = "bad_git_protocol";
    /// The query of `info/refs` names no service of git's smart protocol.
    pub const BAD_SERVICE: &str = "bad_service";
    /// There is nothing at this URL.
    pub const NO_SUCH_PATH: &str = "no_such_path";
    /// The URL doesn't take this method.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// A condition or the pin of the request isn't met.
    pub const PRECONDITION_FAILED: &str = "precondition_failed";
    /// The daemon knows no such repository.
    pub const UNKNOWN_REPO: &str = "unknown_repo";
    /// Upstream is a directory of the daemon's machine, which can't take this request.
    pub const UPSTREAM_IS_LOCAL: &str = "upstream_is_local";
    /// The daemon's policy gave no decision.
    pub const POLICY_FAILED: &str = "policy_failed";
    /// git failed on a mirror, or a file of the mirror can't be read.
    pub const MIRROR_FAILED: &str = "mirror_failed";
    /// Publishing a snapshot failed.
    pub const PUBLISH_FAILED: &str = "publish_failed";
    /// The store failed.
    pub const STORE_FAILED: &str = "store_failed";
    /// The bucket of the store can't be reached.
    pub const STORE_UNAVAILABLE: &str = "store_unavailable";
    /// A temporary file can't be written or read.
    pub const SPOOL_FAILED: &str = "spool_failed";
    /// A task of the daemon failed.
    pub const INTERNAL: &str = "internal";
    /// A limit on requests, processes or bodies is reached.
    pub const BUSY: &str = "busy";
    /// Clients wait for too many repositories that aren't mirrored yet.
    pub const TOO_MANY_NEW: &str = "too_many_new";
    /// Other daemons published the repository at the same time.
    pub const RACED: &str = "raced";
    /// An operator has just removed the repository.
    pub const FORGOTTEN: &str = "forgotten";
    /// The daemon is stopping.
    pub const STOPPING: &str = "stopping";
}

/// The response to a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshAnswer {
    /// The current snapshot.
    pub snapshot: SnapshotId,
    /// Whether the refresh has changed the current snapshot.
    pub moved: bool,
}

/// The refs and commits that a mirror should have. At least one of both fields is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsureRefsRequest {
    /// Full names of refs. The value is the id of the object that the ref should name, or "" if any
    /// object will do.
    #[serde(default)]
    pub refs: BTreeMap<String, String>,
    /// Ids of commits that any ref may reach.
    #[serde(default)]
    pub commits: Vec<String>,
}

/// The response to an [`EnsureRefsRequest`]: the refs and commits that the mirror has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsureRefsAnswer {
    /// All refs of the request. The value is the id of the object that the ref names in the mirror,
    /// or "" if the mirror doesn't have the ref.
    pub refs: BTreeMap<String, String>,
    /// The commits of the request that the mirror doesn't have, in the order of the request.
    pub missing_commits: Vec<String>,
    /// Whether the daemon asked upstream for this request.
    pub fetched: bool,
}

/// The response when the daemon has forgotten a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAnswer {
    /// The repository.
    pub repo: RepoName,
    /// Whether its snapshots were deleted from the store too.
    pub store: bool,
}
