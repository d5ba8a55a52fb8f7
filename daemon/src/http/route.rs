//! The route pattern of a request, for traces. There are few patterns, whatever paths clients
//! request.

use cachewfs_format::api::REPOS_PATH;

use super::routes::parse_repo;
use crate::config::Config;
use crate::traces::Route;

/// The paths below a repository, and their patterns.
const BELOW_REPOSITORY: &[(&str, &str)] = &[
    ("/snapshot.tar.zst", "/git/{repo}/snapshot.tar.zst"),
    ("/mirror.tar.zst", "/git/{repo}/mirror.tar.zst"),
    ("/lfs-snapshot.tar.zst", "/git/{repo}/lfs-snapshot.tar.zst"),
    ("/snapshot.bundle", "/git/{repo}/snapshot.bundle"),
    ("/refresh", "/git/{repo}/refresh"),
    ("/ensure-refs", "/git/{repo}/ensure-refs"),
    ("/info/refs", "/git/{repo}/info/refs"),
    ("/git-upload-pack", "/git/{repo}/git-upload-pack"),
    ("/git-receive-pack", "/git/{repo}/git-receive-pack"),
];

/// The beginning of LFS paths, which are passed on to upstream and end with anything.
const LFS: &str = "/info/lfs/";

/// Returns the pattern of a path, and the repository in it if its name is valid.
pub(super) fn route(path: &str, names: &Config) -> Route {
    if let Some(rest) = path.strip_prefix("/git/") {
        let (pattern, repo) = below_git(rest);
        return of_repo(pattern, repo, names);
    }
    if let Some(repo) = path
        .strip_prefix(REPOS_PATH)
        .and_then(|rest| rest.strip_prefix('/'))
    {
        return of_repo("/api/v1/repos/{repo}", repo, names);
    }
    let pattern = match path {
        "/" => Some("/"),
        "/healthz" => Some("/healthz"),
        "/readyz" => Some("/readyz"),
        "/metrics" => Some("/metrics"),
        "/api/v1/status" => Some("/api/v1/status"),
        REPOS_PATH => Some(REPOS_PATH),
        path if path.starts_with("/status/") => Some("/status/{file}"),
        _ => None,
    };
    Route {
        pattern,
        repo: None,
    }
}

fn of_repo(pattern: &'static str, repo: &str, names: &Config) -> Route {
    let repo = parse_repo(repo, names)
        .ok()
        .map(|repo| repo.as_str().to_owned());
    Route {
        pattern: Some(pattern),
        repo,
    }
}

fn below_git(rest: &str) -> (&'static str, &str) {
    for &(end, pattern) in BELOW_REPOSITORY {
        if let Some(repo) = rest.strip_suffix(end) {
            return (pattern, repo);
        }
    }
    if let Some((repo, _)) = rest.split_once(LFS) {
        return ("/git/{repo}/info/lfs/{rest}", repo);
    }
    if rest.ends_with(".tar.zst") {
        let folder = rest
            .rsplit_once('/')
            .and_then(|(before, _)| before.rsplit_once('/'));
        match folder {
            Some((repo, "snapshot")) => return ("/git/{repo}/snapshot/{id}.tar.zst", repo),
            Some((repo, "lfs-snapshot")) => {
                return ("/git/{repo}/lfs-snapshot/{id}.tar.zst", repo);
            }
            Some((repo, "mirror")) => return ("/git/{repo}/mirror/{id}.tar.zst", repo),
            _ => {}
        }
    }
    // Nothing tells where the name of the repository ends.
    ("/git/{rest}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_contain_nothing_that_a_client_can_choose() {
        for (path, pattern, repo) in [
            (
                "/git/h.org/a/b/snapshot.tar.zst",
                "/git/{repo}/snapshot.tar.zst",
                Some("h.org/a/b"),
            ),
            (
                "/git/h.org/a/lfs-snapshot/1a2b.tar.zst",
                "/git/{repo}/lfs-snapshot/{id}.tar.zst",
                Some("h.org/a"),
            ),
            (
                "/git/h.org/a/mirror/1a2b.tar.zst",
                "/git/{repo}/mirror/{id}.tar.zst",
                Some("h.org/a"),
            ),
            (
                "/git/h.org/a.git/info/refs",
                "/git/{repo}/info/refs",
                Some("h.org/a"),
            ),
            (
                "/git/h.org/a/info/lfs/objects/s3cret",
                "/git/{repo}/info/lfs/{rest}",
                Some("h.org/a"),
            ),
            ("/git/h.org/../refresh", "/git/{repo}/refresh", None),
            ("/git/h.org/a/s3cret", "/git/{rest}", None),
            (
                "/api/v1/repos/h.org/a",
                "/api/v1/repos/{repo}",
                Some("h.org/a"),
            ),
            ("/api/v1/repos", "/api/v1/repos", None),
            ("/status/x.js", "/status/{file}", None),
        ] {
            let expected = Route {
                pattern: Some(pattern),
                repo: repo.map(str::to_owned),
            };
            assert_eq!(route(path, &Config::default()), expected, "{path}");
        }
        assert_eq!(route("/s3cret", &Config::default()), Route::default());
    }
}
