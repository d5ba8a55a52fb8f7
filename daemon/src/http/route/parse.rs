//! [`Route`]: the target of a request, with checked names and ids.

use axum::http::{Method, Uri};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};

use super::endpoint::{Call, Endpoint};
use super::git_target::{AdvertisedService, GitTarget, Service, Spelling};
use super::name::{UrlError, check_path, parse_repo};
use super::shape::{Shape, is_read};
use crate::auth::Action;
use crate::config::Config;

/// The URL of a request, parsed once with the configuration that was in force then.
#[derive(Debug)]
pub(in crate::http) struct ParsedUrl {
    pub(in crate::http) endpoint: Endpoint,
    /// The repository in the path, if its name is valid. The policy decides about it, too.
    pub(in crate::http) repo: Option<RepoName>,
    pub(in crate::http) route: Result<Route, UrlError>,
}

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum Route {
    StatusPage,
    StatusReport,
    StatusFile(String),
    Healthz,
    Readyz,
    Metrics,
    Repos,
    Repo(RepoName),
    Call(RepoName, Call),
    /// A resource of a repository that the daemon itself has.
    Resource(RepoName, RepoResource),
    Git(GitTarget),
    Unknown,
}

/// A resource of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum RepoResource {
    Stable(ArchiveKind),
    Immutable(ArchiveKind, SnapshotId),
    Refresh,
    EnsureRefs,
    Bundle,
}

impl ParsedUrl {
    /// Parses a URL. `names` gives names their canonical spelling.
    pub(in crate::http) fn of(method: &Method, uri: &Uri, names: &Config) -> Self {
        let shape = Shape::of(method, uri.path());
        let repo = parse_repo(shape.name, names);
        Self {
            endpoint: shape.endpoint,
            repo: repo.as_ref().ok().cloned(),
            route: Route::of(shape, repo, uri.query()),
        }
    }
}

impl Route {
    fn of(
        shape: Shape<'_>,
        repo: Result<RepoName, UrlError>,
        query: Option<&str>,
    ) -> Result<Self, UrlError> {
        let resource = |resource| Ok(Self::Resource(repo.clone()?, resource));
        let git = |service| {
            Ok(Self::Git(GitTarget {
                repo: repo.clone()?,
                spelling: Spelling::of(shape.name),
                service,
            }))
        };
        match shape.endpoint {
            Endpoint::StatusPage => Ok(Self::StatusPage),
            Endpoint::StatusReport => Ok(Self::StatusReport),
            Endpoint::StatusFile => Ok(Self::StatusFile(shape.rest.to_owned())),
            Endpoint::Healthz => Ok(Self::Healthz),
            Endpoint::Readyz => Ok(Self::Readyz),
            Endpoint::Metrics => Ok(Self::Metrics),
            Endpoint::Repos => Ok(Self::Repos),
            Endpoint::Repo => Ok(Self::Repo(repo?)),
            Endpoint::Call(call) => Ok(Self::Call(repo?, call)),
            Endpoint::Stable(kind) => resource(RepoResource::Stable(kind)),
            Endpoint::Immutable(kind) => {
                let repo = repo?;
                let id = SnapshotId::parse(shape.rest).map_err(UrlError::BadSnapshotId)?;
                Ok(Self::Resource(repo, RepoResource::Immutable(kind, id)))
            }
            Endpoint::Bundle => resource(RepoResource::Bundle),
            Endpoint::EnsureRefs => resource(RepoResource::EnsureRefs),
            Endpoint::Refresh => resource(RepoResource::Refresh),
            Endpoint::InfoRefs => git(Service::InfoRefs(AdvertisedService::of(query))),
            Endpoint::UploadPack => git(Service::UploadPack),
            Endpoint::ReceivePack => git(Service::ReceivePack),
            Endpoint::Lfs | Endpoint::BelowGit => git(Service::Other(check_path(shape.rest)?)),
            Endpoint::UnknownGit => Err(UrlError::NoSuchPath),
            Endpoint::Unknown => Ok(Self::Unknown),
        }
    }

    /// Returns the action that the policy decides about, or `None` if everybody may send the
    /// request.
    ///
    /// An unknown path needs the `admin` action, and so does a method that changes something where
    /// there is nothing to change.
    pub(in crate::http) fn action(&self, method: &Method) -> Option<Action> {
        let is_read = is_read(method);
        let if_read = |action| if is_read { action } else { Action::Admin };
        match self {
            Self::Healthz | Self::Readyz => None,
            Self::StatusPage | Self::StatusReport | Self::StatusFile(_) | Self::Metrics => {
                Some(if_read(Action::Metrics))
            }
            Self::Repos | Self::Repo(_) => Some(if_read(Action::Read)),
            Self::Call(..) | Self::Unknown => Some(Action::Admin),
            Self::Git(target) if target.is_push(is_read) => Some(Action::Push),
            // A refresh and `ensure-refs` count as reads: they only bring the mirror up to date.
            Self::Resource(..) | Self::Git(_) => Some(Action::Read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_url(method: &str, uri: &str) -> ParsedUrl {
        let method = method.parse().unwrap();
        ParsedUrl::of(&method, &uri.parse().unwrap(), &Config::default())
    }

    fn parse(method: &str, uri: &str) -> Result<Route, UrlError> {
        parse_url(method, uri).route
    }

    fn resource(path: &str) -> (String, RepoResource) {
        match parse("GET", path).unwrap() {
            Route::Resource(repo, resource) => (repo.to_string(), resource),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn git(path: &str) -> (String, Spelling, Service) {
        match parse("GET", path).unwrap() {
            Route::Git(target) => (target.repo.to_string(), target.spelling, target.service),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn finds_what_a_url_asks_for() {
        let commit = "1a".repeat(20);
        let id = SnapshotId::parse(&commit).unwrap();
        let stable = |name: &str, kind| (name.to_owned(), RepoResource::Stable(kind));

        assert_eq!(
            resource("/git/h.org/a/b/snapshot.tar.zst"),
            stable("h.org/a/b", ArchiveKind::Checkout)
        );
        assert_eq!(
            resource("/git/h.org/a%2db.git/mirror.tar.zst"),
            stable("h.org/a-b", ArchiveKind::Mirror)
        );
        assert_eq!(
            resource(&format!("/git/h.org/a/snapshot/{commit}.tar.zst")),
            (
                "h.org/a".to_owned(),
                RepoResource::Immutable(ArchiveKind::Checkout, id)
            )
        );
        assert_eq!(
            resource("/git/h.org/a/lfs-snapshot.tar.zst"),
            stable("h.org/a", ArchiveKind::Lfs)
        );
        assert_eq!(resource("/git/h.org/a/refresh").1, RepoResource::Refresh);
        assert_eq!(
            resource("/git/h.org/a.git/ensure-refs").1,
            RepoResource::EnsureRefs
        );
    }

    #[test]
    fn finds_what_a_git_client_asks_for() {
        let name = || "h.org/a/b".to_owned();

        assert_eq!(
            git("/git/h.org/a/b/info/refs"),
            (name(), Spelling::Plain, Service::InfoRefs(None))
        );
        assert_eq!(
            git("/git/h.org/a/b.git/git-upload-pack"),
            (name(), Spelling::WithGit, Service::UploadPack)
        );
        assert_eq!(
            git("/git/h.org/a/b.git/git-receive-pack"),
            (name(), Spelling::WithGit, Service::ReceivePack)
        );
        let lfs = "/info/lfs/objects/batch".to_owned();
        assert_eq!(
            git("/git/h.org/a/b/info/lfs/objects/batch"),
            (name(), Spelling::Plain, Service::Other(lfs))
        );
        let other = "/raw/x%20y".to_owned();
        assert_eq!(
            git("/git/h.org/a/b.git/raw/x%20y"),
            (name(), Spelling::WithGit, Service::Other(other))
        );
    }

    #[test]
    fn refuses_names_that_could_mean_another_path() {
        for bad in [
            "h.org/../x",
            "h.org/%2e%2e/x",
            "h.org/a%2Fb",
            "h.org//x",
            "/h.org/x",
            "h.org/-x",
            "h.org/a%zz",
            "h.org",
            "",
        ] {
            for (method, uri) in [
                ("GET", format!("/git/{bad}/snapshot.tar.zst")),
                ("GET", format!("/git/{bad}/info/refs")),
                ("POST", format!("/git/{bad}/git-upload-pack")),
                ("GET", format!("/api/v1/repos/{bad}")),
                ("POST", format!("/api/v1/repos/{bad}/publish")),
            ] {
                let parsed = parse(method, &uri);
                assert!(
                    matches!(
                        parsed,
                        Err(UrlError::BadRepoName(_) | UrlError::BadEncoding)
                    ),
                    "{uri}: {parsed:?}"
                );
            }
        }
    }

    #[test]
    fn refuses_paths_that_leave_the_repository() {
        for bad in [
            "h.org/a/info/lfs/../../../b/info/refs",
            "h.org/a/info/lfs/%2e%2e/x",
            "h.org/a/info/lfs/x%2f..",
            "h.org/a.git/x//y",
            "h.org/a.git/..%5cx",
            "h.org/a.git/%0a",
        ] {
            let parsed = parse("GET", &format!("/git/{bad}"));
            assert!(parsed.is_err(), "{bad}: {parsed:?}");
        }
    }

    #[test]
    fn every_request_needs_an_action() {
        let of = |method: &str, uri: &str| {
            let url = parse_url(method, uri);
            let action = url.route.unwrap().action(&method.parse().unwrap());
            (action, url.repo.map(|repo| repo.to_string()))
        };
        let action = |action| (Some(action), Some("h.org/a/b".to_owned()));
        for (method, uri) in [
            ("GET", "/git/h.org/a/b/snapshot.tar.zst"),
            ("POST", "/git/h.org/a/b/refresh"),
            ("POST", "/git/h.org/a/b.git/ensure-refs"),
            ("GET", "/git/h.org/a/b/snapshot.bundle?base=1"),
            ("GET", "/git/h.org/a/b/info/refs?service=git-upload-pack"),
            ("POST", "/git/h.org/a/b.git/git-upload-pack"),
            ("POST", "/git/h.org/a/b.git/info/lfs/objects/batch"),
            ("GET", "/git/h.org/a/b.git/info/lfs/locks"),
            ("GET", "/api/v1/repos/h.org/a/b"),
        ] {
            assert_eq!(of(method, uri), action(Action::Read), "{method} {uri}");
        }
        for (method, uri) in [
            ("GET", "/git/h.org/a/b/info/refs?service=git-receive-pack"),
            ("POST", "/git/h.org/a/b.git/git-receive-pack"),
            ("POST", "/git/h.org/a/b.git/info/lfs/locks"),
            ("PUT", "/git/h.org/a/b.git/x"),
        ] {
            assert_eq!(of(method, uri), action(Action::Push), "{method} {uri}");
        }
        for (method, uri) in [
            ("POST", "/api/v1/repos/h.org/a/b/relayout"),
            ("DELETE", "/api/v1/repos/h.org/a/b"),
        ] {
            assert_eq!(of(method, uri), action(Action::Admin), "{method} {uri}");
        }
        assert_eq!(of("GET", "/healthz"), (None, None));
        assert_eq!(of("GET", "/metrics"), (Some(Action::Metrics), None));
        for (method, uri) in [
            ("GET", "/debug"),
            ("POST", "/metrics"),
            ("GET", "//git/h.org/a/b/info/refs"),
            ("POST", "/api/v1/repos"),
            ("GET", "/api/v1/reposx"),
        ] {
            assert_eq!(of(method, uri), (Some(Action::Admin), None), "{uri}");
        }
    }
}
