//! [`Endpoint`]: the places that the daemon serves, whatever the repository.
//!
//! The pattern of each endpoint is its `http.route` in traces. There are few patterns, whatever
//! paths clients request.

use cachewfs_format::ArchiveKind;

use crate::metrics::RouteClass;

/// The target of a path, whatever the repository and before names are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Endpoint {
    StatusPage,
    StatusReport,
    /// The page's style, script and icon.
    StatusFile,
    Healthz,
    Readyz,
    Metrics,
    Repos,
    Repo,
    Call(Call),
    Stable(ArchiveKind),
    Immutable(ArchiveKind),
    Bundle,
    EnsureRefs,
    Refresh,
    InfoRefs,
    UploadPack,
    ReceivePack,
    Lfs,
    /// Another path below a repository, whose name ends with `.git`.
    BelowGit,
    /// A path below `/git/` in which nothing tells where the name of the repository ends.
    UnknownGit,
    Unknown,
}

/// An operation of administrators on one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Call {
    Forget,
    Publish,
    Relayout,
}

impl Call {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "forget" => Some(Self::Forget),
            "publish" => Some(Self::Publish),
            "relayout" => Some(Self::Relayout),
            _ => None,
        }
    }
}

impl Endpoint {
    /// Returns the pattern of the paths, which contains nothing that a client can choose.
    pub(in crate::http) fn pattern(self) -> Option<&'static str> {
        Some(match self {
            Self::StatusPage => "/",
            Self::StatusReport => "/api/v1/status",
            Self::StatusFile => "/status/{file}",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Repos => "/api/v1/repos",
            Self::Repo => "/api/v1/repos/{repo}",
            Self::Call(Call::Forget) => "/api/v1/repos/{repo}/forget",
            Self::Call(Call::Publish) => "/api/v1/repos/{repo}/publish",
            Self::Call(Call::Relayout) => "/api/v1/repos/{repo}/relayout",
            Self::Stable(ArchiveKind::Checkout) => "/git/{repo}/snapshot.tar.zst",
            Self::Stable(ArchiveKind::Mirror) => "/git/{repo}/mirror.tar.zst",
            Self::Stable(ArchiveKind::Lfs) => "/git/{repo}/lfs-snapshot.tar.zst",
            Self::Immutable(ArchiveKind::Checkout) => "/git/{repo}/snapshot/{id}.tar.zst",
            Self::Immutable(ArchiveKind::Mirror) => "/git/{repo}/mirror/{id}.tar.zst",
            Self::Immutable(ArchiveKind::Lfs) => "/git/{repo}/lfs-snapshot/{id}.tar.zst",
            Self::Bundle => "/git/{repo}/snapshot.bundle",
            Self::EnsureRefs => "/git/{repo}/ensure-refs",
            Self::Refresh => "/git/{repo}/refresh",
            Self::InfoRefs => "/git/{repo}/info/refs",
            Self::UploadPack => "/git/{repo}/git-upload-pack",
            Self::ReceivePack => "/git/{repo}/git-receive-pack",
            Self::Lfs => "/git/{repo}/info/lfs/{rest}",
            Self::BelowGit | Self::UnknownGit => "/git/{rest}",
            Self::Unknown => return None,
        })
    }

    /// Returns whether git itself asks for it.
    pub(in crate::http) fn is_of_git(self) -> bool {
        matches!(self, Self::InfoRefs | Self::UploadPack | Self::ReceivePack)
    }

    /// Returns the class of route, which is a label of metrics.
    pub(in crate::http) fn class(self) -> RouteClass {
        match self {
            Self::Stable(_) | Self::Immutable(_) => RouteClass::Archive,
            Self::Bundle | Self::EnsureRefs | Self::Refresh => RouteClass::Snapshot,
            Self::InfoRefs | Self::UploadPack => RouteClass::Git,
            Self::ReceivePack | Self::Lfs | Self::BelowGit | Self::UnknownGit => RouteClass::Passed,
            Self::StatusReport | Self::Repos | Self::Repo | Self::Call(_) => RouteClass::Api,
            Self::StatusPage | Self::StatusFile | Self::Healthz | Self::Readyz | Self::Metrics => {
                RouteClass::Operations
            }
            Self::Unknown => RouteClass::Other,
        }
    }
}
