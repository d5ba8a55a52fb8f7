//! What daemon and clients say to each other over HTTP: paths, headers, JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ArchiveKind, ObjectId, RepoName, SnapshotId};

/// `X-Cachew-Snapshot-Commit`: the commit of the snapshot that is served.
pub const SNAPSHOT_COMMIT_HEADER: &str = "x-cachew-snapshot-commit";
/// `X-Cachew-Bundle-Url`: where a bundle brings the snapshot up to date.
pub const BUNDLE_URL_HEADER: &str = "x-cachew-bundle-url";
/// `X-Cachew-Snapshot-Pin`: asks for, and carries, the revision that ranges are of.
pub const SNAPSHOT_PIN_HEADER: &str = "x-cachew-snapshot-pin";
/// `X-Cachewfs-Direct: 1`: who asks takes a 307 for a range that lies elsewhere.
pub const DIRECT_HEADER: &str = "x-cachewfs-direct";
/// `X-Cachewfs-Direct-Range`: the `Range` to ask for there; that of the request counts in the archive.
pub const DIRECT_RANGE_HEADER: &str = "x-cachewfs-direct-range";

/// `X-Cachewfs-Notice`: a sentence about files that the work tree of the snapshot lacks; printable ASCII.
pub const NOTICE_HEADER: &str = "x-cachewfs-notice";

/// The path of the stable URL of an archive: the current one.
pub fn stable_path(repo: &RepoName, kind: ArchiveKind) -> String {
    format!("/git/{repo}/{}.tar.zst", file_stem(kind))
}

/// The path of the immutable URL of an archive: the same bytes for ever, or 404.
pub fn immutable_path(repo: &RepoName, kind: ArchiveKind, snapshot: SnapshotId) -> String {
    format!("/git/{repo}/{}/{snapshot}.tar.zst", file_stem(kind))
}

/// The path that `POST` makes the daemon ask upstream and publish what is new.
pub fn refresh_path(repo: &RepoName) -> String {
    format!("/git/{repo}/refresh")
}

/// The path of a bundle that brings a clone at the commit `base` up to date.
pub fn bundle_path(repo: &RepoName, base: ObjectId) -> String {
    format!("/git/{repo}/snapshot.bundle?base={base}")
}

/// The path that `POST` of an [`EnsureRefsRequest`] makes the mirror have what it names.
pub fn ensure_refs_path(repo: &RepoName) -> String {
    format!("/git/{repo}/ensure-refs")
}

/// The path of what the daemon knows of a repository.
pub fn repo_path(repo: &RepoName) -> String {
    format!("/api/v1/repos/{repo}")
}

/// The path of the list of all repositories that the daemon knows.
pub const REPOS_PATH: &str = "/api/v1/repos";

const fn file_stem(kind: ArchiveKind) -> &'static str {
    match kind {
        ArchiveKind::Mirror => "mirror",
        ArchiveKind::Checkout => "snapshot",
        ArchiveKind::Lfs => "lfs-snapshot",
    }
}

/// The kind of archive whose URLs have `stem`: `<stem>.tar.zst` and `<stem>/<snapshot>.tar.zst`.
pub fn kind_of_stem(stem: &str) -> Option<ArchiveKind> {
    let mut kinds = ArchiveKind::ALL.iter().copied();
    kinds.find(|&kind| file_stem(kind) == stem)
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// One of [`code`]: stable, for programs.
    pub code: String,
    /// A sentence for people that says what to do.
    pub message: String,
}

/// The codes of errors.
pub mod code {
    /// Nothing is published yet, but it is being prepared: ask again.
    pub const SNAPSHOT_NOT_READY: &str = "snapshot_not_ready";
    /// Nothing is published.
    pub const NO_SNAPSHOT: &str = "no_snapshot";
    /// Upstream has no such repository, or doesn't show it.
    pub const UPSTREAM_NOT_FOUND: &str = "upstream_not_found";
    /// Upstream has the repository under another name.
    pub const UPSTREAM_MOVED: &str = "upstream_moved";
    /// Upstream redirects to a place that is no repository below its base URL.
    pub const UPSTREAM_REDIRECTS: &str = "upstream_redirects";
    /// Upstream doesn't let the daemon read the repository.
    pub const UPSTREAM_DENIED: &str = "upstream_denied";
    /// Upstream can't be reached.
    pub const UPSTREAM_UNREACHABLE: &str = "upstream_unreachable";
    /// Upstream was too slow.
    pub const UPSTREAM_TIMEOUT: &str = "upstream_timeout";
    /// The daemon's disk is full.
    pub const DISK_FULL: &str = "disk_full";
    /// Upstream fails.
    pub const UPSTREAM_FAILED: &str = "upstream_failed";
    /// Upstream is a shallow clone, which lacks a part of its history.
    pub const UPSTREAM_SHALLOW: &str = "upstream_shallow";
    /// The repository has no commits.
    pub const REPOSITORY_EMPTY: &str = "repository_empty";
    /// The tree of HEAD can't be checked out: there is only a mirror archive.
    pub const NO_CHECKOUT: &str = "no_checkout";
    /// No file of HEAD's tree is kept with Git LFS.
    pub const NO_LFS: &str = "no_lfs";
    /// The daemon is not to fetch LFS objects: `lfs = "off"`.
    pub const LFS_UNAVAILABLE: &str = "lfs_unavailable";
    /// The LFS objects could not be fetched, or are not what the repository says.
    pub const LFS_FAILED: &str = "lfs_failed";
    /// The daemon wants a token, or doesn't know the one that it was shown.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// The daemon's policy doesn't allow this.
    pub const FORBIDDEN: &str = "forbidden";
    /// The host is not configured.
    pub const UNKNOWN_HOST: &str = "unknown_host";
    /// The URL names no repository.
    pub const BAD_REPO_NAME: &str = "bad_repo_name";
    /// The URL names no snapshot.
    pub const BAD_SNAPSHOT_ID: &str = "bad_snapshot_id";
    /// The body, or the query, of the request is not understood.
    pub const BAD_REQUEST: &str = "bad_request";
    /// The repository has no commit of which a bundle could begin.
    pub const UNKNOWN_BASE: &str = "unknown_base";
    /// The body of the request is too large.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
}

/// The answer to a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshAnswer {
    /// The snapshot that is current now.
    pub snapshot: SnapshotId,
    /// Whether it is another than before.
    pub moved: bool,
}

/// What a mirror should have; at least one of both is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsureRefsRequest {
    /// Full names of refs, with the object each should name, or "" for any.
    #[serde(default)]
    pub refs: BTreeMap<String, String>,
    /// Ids of commits, whichever ref reaches them.
    #[serde(default)]
    pub commits: Vec<String>,
}

/// What a mirror has of an [`EnsureRefsRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsureRefsAnswer {
    /// All refs of the request, with the object each names, or "" if it isn't there.
    pub refs: BTreeMap<String, String>,
    /// The commits of the request that aren't there, in its order.
    pub missing_commits: Vec<String>,
    /// Whether upstream was asked.
    pub fetched: bool,
}

/// The answer when a repository was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAnswer {
    /// The repository.
    pub repo: RepoName,
    /// Whether its snapshots were deleted, too.
    pub store: bool,
}

/// What the daemon knows of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStatus {
    /// The repository.
    pub repo: RepoName,
    /// The state of its mirror: `empty`, `restoring`, `cloning`, `ready` or `failed`.
    pub state: String,
    /// What went wrong last, if something did.
    pub error: Option<String>,
    /// The same, for programs.
    #[serde(default)]
    pub failure: Option<FailureStatus>,
    /// When upstream was last asked with success, in seconds since the epoch.
    pub updated_at: Option<u64>,
    /// What is done for it, if something is.
    #[serde(default)]
    pub job: Option<JobStatus>,
    /// When the next update begins unless somebody asks for one earlier, in seconds since the epoch;
    /// absent without a mirror that is followed.
    #[serde(default)]
    pub next_update_at: Option<u64>,
    /// What is published.
    pub published: Option<PublishedStatus>,
    /// The LFS archive; absent while nobody asked for it, and where no file is kept with Git LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs: Option<LfsStatus>,
}

/// All that the daemon says of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoDetail {
    /// What the list says of it.
    #[serde(flatten)]
    pub status: RepoStatus,
    /// The refs of the mirror; absent while there is none.
    pub refs: Option<RefsStatus>,
    /// The newest snapshots, newest first.
    pub snapshots: Vec<SnapshotStatus>,
    /// How many snapshots are kept.
    pub snapshots_total: usize,
}

/// A job of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// `clone`, `update`, `publish` or `maintain`.
    pub class: String,
    /// Whether its turn has come.
    pub is_running: bool,
    /// For how long it has run, or waited.
    pub since_seconds: u64,
    /// The daemon that does the same, and that is waited for; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// What a mirror has of refs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefsStatus {
    /// The commit of HEAD, if there is one.
    pub head: Option<ObjectId>,
    /// The first refs in order of their names, with the object each names.
    pub named: BTreeMap<String, ObjectId>,
    /// Whether there are more.
    pub is_cut: bool,
}

/// A snapshot that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its id.
    pub snapshot: SnapshotId,
    /// When it was made, in seconds since the epoch.
    pub created_at: u64,
    /// Length in bytes of the checkout archive, or of the mirror archive if there is no other.
    pub bytes: u64,
    /// How much of that the snapshot before has, too; absent for the oldest.
    pub shared_bytes: Option<u64>,
}

/// What the daemon knows of the LFS archive of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LfsStatus {
    /// Whether it is being made.
    pub is_running: bool,
    /// What is published, if something is.
    pub published: Option<PublishedLfs>,
    /// Why it could not be made last, if it could not.
    pub failure: Option<FailureStatus>,
}

/// A published LFS archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLfs {
    /// The snapshot whose LFS objects it has.
    pub snapshot: SnapshotId,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
    /// Length of the archive in bytes.
    pub bytes: u64,
}

/// Why a repository can't be brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    /// One of [`code`], or another that is as stable.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Since when, in seconds since the epoch.
    pub since: u64,
    /// How often it was tried since then, or since somebody asked for a refresh.
    pub tries: u32,
    /// When it is tried again, in seconds since the epoch.
    pub next_try_at: u64,
}

/// What is published of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// The current snapshot.
    pub snapshot: SnapshotId,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
    /// Length of the mirror archive in bytes.
    pub mirror_bytes: u64,
    /// Length of the checkout archive in bytes; absent where there is none.
    pub checkout_bytes: Option<u64>,
    /// A sentence about files of HEAD's tree that the work tree lacks, if it lacks some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// The list of all repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoList {
    /// In order of their names.
    pub repos: Vec<RepoStatus>,
    /// The hosts that the daemon mirrors from.
    pub hosts: Vec<String>,
}
