//! Requests of git clients, and of other programs that use the daemon in place of upstream.

use cachewfs_format::RepoName;

/// The path of LFS's batch API below a repository.
const LFS_BATCH: &str = "/info/lfs/objects/batch";

/// Whether the client writes the repository's name with `.git`. Upstream gets the same spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Spelling {
    Plain,
    WithGit,
}

impl Spelling {
    pub(super) fn of(name: &str) -> Self {
        match name.strip_suffix(".git") {
            Some(_) => Self::WithGit,
            None => Self::Plain,
        }
    }
}

/// The service that a request for `info/refs` wants to have advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum AdvertisedService {
    UploadPack,
    ReceivePack,
}

impl AdvertisedService {
    /// Returns the service in a query, which must contain exactly one and nothing else.
    pub(super) fn of(query: Option<&str>) -> Option<Self> {
        match query {
            Some("service=git-upload-pack") => Some(Self::UploadPack),
            Some("service=git-receive-pack") => Some(Self::ReceivePack),
            _ => None,
        }
    }
}

/// The service of the repository that a URL addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum Service {
    /// `None` if the query names no service.
    InfoRefs(Option<AdvertisedService>),
    UploadPack,
    ReceivePack,
    /// LFS, or any other path that upstream may have below a repository. The path is checked, and
    /// still encoded as the client sent it.
    Other(String),
}

/// The target of a request of a git client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct GitTarget {
    pub(in crate::http) repo: RepoName,
    pub(in crate::http) spelling: Spelling,
    pub(in crate::http) service: Service,
}

impl GitTarget {
    /// Returns whether the request may change something upstream. A POST to the LFS batch API
    /// counts as a read, because downloads use it too.
    pub(super) fn is_push(&self, is_read: bool) -> bool {
        match &self.service {
            Service::InfoRefs(service) => *service == Some(AdvertisedService::ReceivePack),
            Service::UploadPack => false,
            Service::ReceivePack => true,
            Service::Other(path) => !is_read && path != LFS_BATCH,
        }
    }
}
