//! [`Shape`]: the parts of a path, before they are decoded and checked.

use axum::http::Method;
use cachewfs_format::api::{REPOS_PATH, kind_of_stem};

use super::endpoint::{Call, Endpoint};

/// The beginning of every path below a repository.
const GIT: &str = "/git/";
/// The beginning of every path of LFS below a repository.
const LFS: &str = "/info/lfs/";

/// The parts of a path, as the client sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape<'a> {
    pub(super) endpoint: Endpoint,
    /// The name of the repository, or "" if the endpoint has none.
    pub(super) name: &'a str,
    /// The part that the endpoint needs beside the name: the id of a snapshot, the name of a file
    /// of the status page, or the path that is passed on. Otherwise "".
    pub(super) rest: &'a str,
}

impl<'a> Shape<'a> {
    pub(super) fn of(method: &Method, path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix(GIT) {
            return Self::below_git(rest);
        }
        if let Some(name) = path
            .strip_prefix(REPOS_PATH)
            .and_then(|rest| rest.strip_prefix('/'))
        {
            return Self::of_api(method, name);
        }
        if let Some(file) = path.strip_prefix("/status/") {
            return Self::new(Endpoint::StatusFile, "", file);
        }
        let endpoint = match path {
            "/" => Endpoint::StatusPage,
            "/healthz" => Endpoint::Healthz,
            "/readyz" => Endpoint::Readyz,
            "/metrics" => Endpoint::Metrics,
            "/api/v1/status" => Endpoint::StatusReport,
            REPOS_PATH => Endpoint::Repos,
            _ => Endpoint::Unknown,
        };
        Self::new(endpoint, "", "")
    }

    fn new(endpoint: Endpoint, name: &'a str, rest: &'a str) -> Self {
        Self {
            endpoint,
            name,
            rest,
        }
    }

    /// Splits a path after `/api/v1/repos/`. A repository may be called like a call, so a path that
    /// is read names a repository as a whole.
    fn of_api(method: &Method, name: &'a str) -> Self {
        let call = name.rsplit_once('/').filter(|_| !is_read(method));
        match call.and_then(|(repo, word)| Some((repo, Call::parse(word)?))) {
            Some((repo, call)) => Self::new(Endpoint::Call(call), repo, ""),
            None => Self::new(Endpoint::Repo, name, ""),
        }
    }

    /// Splits a path after `/git/`.
    fn below_git(rest: &'a str) -> Self {
        // git's own paths come first: upstream's LFS may have a path that ends with `/refresh`.
        for (suffix, endpoint) in [
            ("/info/refs", Endpoint::InfoRefs),
            ("/git-upload-pack", Endpoint::UploadPack),
            ("/git-receive-pack", Endpoint::ReceivePack),
        ] {
            if let Some(name) = rest.strip_suffix(suffix) {
                return Self::new(endpoint, name, "");
            }
        }
        if let Some((name, path)) = split_before(rest, LFS, 0) {
            return Self::new(Endpoint::Lfs, name, path);
        }
        if let Some(shape) = Self::of_resource(rest) {
            return shape;
        }
        // Anything else below a repository is passed on. Only `.git` tells where the name ends.
        match split_before(rest, ".git/", ".git".len()) {
            Some((name, path)) => Self::new(Endpoint::BelowGit, name, path),
            None => Self::new(Endpoint::UnknownGit, "", ""),
        }
    }

    /// Splits `<name>/<resource>`. Returns `None` if it isn't a resource of the daemon's own.
    fn of_resource(path: &'a str) -> Option<Self> {
        let (before, last) = path.rsplit_once('/')?;
        let own = match last {
            "refresh" => Some(Endpoint::Refresh),
            "ensure-refs" => Some(Endpoint::EnsureRefs),
            "snapshot.bundle" => Some(Endpoint::Bundle),
            _ => None,
        };
        if let Some(endpoint) = own {
            return Some(Self::new(endpoint, before, ""));
        }
        let stem = last.strip_suffix(".tar.zst")?;
        if let Some(kind) = kind_of_stem(stem) {
            return Some(Self::new(Endpoint::Stable(kind), before, ""));
        }
        let (name, folder) = before.rsplit_once('/')?;
        let kind = kind_of_stem(folder)?;
        Some(Self::new(Endpoint::Immutable(kind), name, stem))
    }
}

/// Splits `text` `offset` bytes after the beginning of the first `pattern` in it.
fn split_before<'a>(text: &'a str, pattern: &str, offset: usize) -> Option<(&'a str, &'a str)> {
    text.split_at_checked(text.find(pattern)? + offset)
}

/// Returns whether a method only reads.
pub(in crate::http) fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str) -> Shape<'_> {
        Shape::of(&Method::GET, path)
    }

    #[test]
    fn patterns_contain_nothing_that_a_client_can_choose() {
        for (path, pattern, name) in [
            (
                "/git/h.org/a/b/snapshot.tar.zst",
                "/git/{repo}/snapshot.tar.zst",
                "h.org/a/b",
            ),
            (
                "/git/h.org/a/lfs-snapshot/1a2b.tar.zst",
                "/git/{repo}/lfs-snapshot/{id}.tar.zst",
                "h.org/a",
            ),
            (
                "/git/h.org/a/mirror/1a2b.tar.zst",
                "/git/{repo}/mirror/{id}.tar.zst",
                "h.org/a",
            ),
            (
                "/git/h.org/a.git/info/refs",
                "/git/{repo}/info/refs",
                "h.org/a.git",
            ),
            (
                "/git/h.org/a/info/lfs/objects/s3cret",
                "/git/{repo}/info/lfs/{rest}",
                "h.org/a",
            ),
            ("/git/h.org/../refresh", "/git/{repo}/refresh", "h.org/.."),
            ("/git/h.org/a/s3cret", "/git/{rest}", ""),
            ("/git/h.org/a.git/s3cret", "/git/{rest}", "h.org/a.git"),
            ("/api/v1/repos/h.org/a", "/api/v1/repos/{repo}", "h.org/a"),
            ("/api/v1/repos", "/api/v1/repos", ""),
            ("/status/x.js", "/status/{file}", ""),
        ] {
            let shape = shape(path);

            assert_eq!(shape.endpoint.pattern(), Some(pattern), "{path}");
            assert_eq!(shape.name, name, "{path}");
        }
        assert_eq!(shape("/s3cret").endpoint.pattern(), None);
    }

    #[test]
    fn every_path_has_a_class() {
        for (path, class) in [
            ("/git/h.org/a/snapshot.tar.zst", "archive"),
            ("/git/h.org/a/mirror/1a.tar.zst", "archive"),
            ("/git/h.org/a/snapshot.bundle", "snapshot"),
            ("/git/h.org/a/refresh", "snapshot"),
            ("/git/h.org/a.git/info/refs", "git"),
            ("/git/h.org/a/git-upload-pack", "git"),
            ("/git/h.org/a/git-receive-pack", "passed"),
            ("/git/h.org/a/info/lfs/objects/batch", "passed"),
            ("/git/h.org/a/info/lfs/refresh", "passed"),
            ("/git/h.org/a.git/raw/x.tar.zst", "passed"),
            ("/api/v1/repos", "api"),
            ("/", "operations"),
            ("/metrics", "operations"),
            ("/favicon.ico", "other"),
            ("", "other"),
        ] {
            assert_eq!(shape(path).endpoint.class().as_str(), class, "{path}");
        }
    }

    #[test]
    fn a_call_is_no_part_of_the_name() {
        let path = "/api/v1/repos/h.org/a/publish";

        let call = Shape::of(&Method::POST, path);
        assert_eq!(
            (call.endpoint, call.name),
            (Endpoint::Call(Call::Publish), "h.org/a")
        );
        let read = shape(path);
        assert_eq!(
            (read.endpoint, read.name),
            (Endpoint::Repo, "h.org/a/publish")
        );
        let other = Shape::of(&Method::POST, "/api/v1/repos/h.org/a/refresh");
        assert_eq!(other.endpoint, Endpoint::Repo);
    }
}
