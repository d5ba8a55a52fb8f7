//! Parses the URLs of the git protocol below `/git/`.

use cachewfs_format::RepoName;

use crate::config::Config;
use crate::http::error::ApiError;
use crate::http::routes::{decode_percent, parse_repo};

/// Whether the client writes the repository's name with `.git`. Upstream gets the same spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Plain,
    WithGit,
}

/// The service of the repository that a URL addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    InfoRefs,
    UploadPack,
    ReceivePack,
    /// LFS, or any other path that upstream may have below a repository. The path is checked, and
    /// still encoded as the client sent it.
    Other(String),
}

/// The target of a request of a git client, or of another program that uses the daemon in place of
/// upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct GitTarget {
    pub(super) repo: RepoName,
    pub(super) spelling: Spelling,
    pub(super) service: Service,
}

impl GitTarget {
    /// Returns whether the request may change something upstream. A POST to the LFS batch API
    /// counts as a read, because downloads use it too.
    pub(in crate::http) fn is_push(&self, query: Option<&str>, is_read: bool) -> bool {
        match &self.service {
            Service::InfoRefs => query == Some("service=git-receive-pack"),
            Service::UploadPack => false,
            Service::ReceivePack => true,
            Service::Other(path) => !is_read && path != "/info/lfs/objects/batch",
        }
    }

    pub(in crate::http) fn into_repo(self) -> RepoName {
        self.repo
    }
}

const LFS: &str = "/info/lfs/";

/// Parses the path of a URL after `/git/`, or returns `None` if it doesn't belong to the git
/// protocol.
pub(in crate::http) fn parse(rest: &str, names: &Config) -> Result<Option<GitTarget>, ApiError> {
    let services = [
        ("/info/refs", Service::InfoRefs),
        ("/git-upload-pack", Service::UploadPack),
        ("/git-receive-pack", Service::ReceivePack),
    ];
    for (suffix, service) in services {
        if let Some(name) = rest.strip_suffix(suffix) {
            return target(name, service, names).map(Some);
        }
    }
    match rest.split_once(LFS) {
        Some((name, tail)) => {
            let path = checked(&format!("{LFS}{tail}"))?;
            target(name, Service::Other(path), names).map(Some)
        }
        None => Ok(None),
    }
}

/// Parses a path that is nothing else as a path below the upstream repository. The name must end
/// with `.git`, because nothing else tells where it ends.
pub(in crate::http) fn parse_other(
    rest: &str,
    names: &Config,
) -> Result<Option<GitTarget>, ApiError> {
    let Some((name, tail)) = rest.split_once(".git/") else {
        return Ok(None);
    };
    let path = checked(&format!("/{tail}"))?;
    target(&format!("{name}.git"), Service::Other(path), names).map(Some)
}

fn target(name: &str, service: Service, names: &Config) -> Result<GitTarget, ApiError> {
    let spelling = match name.strip_suffix(".git") {
        Some(_) => Spelling::WithGit,
        None => Spelling::Plain,
    };
    Ok(GitTarget {
        repo: parse_repo(name, names)?,
        spelling,
        service,
    })
}

/// Returns `path`, or an error if a server could resolve it to a path outside of the repository.
fn checked(path: &str) -> Result<String, ApiError> {
    // Checked after decoding, because the server decodes too: `%2e%2e` is `..`.
    let is_good = |segment: &str| {
        decode_percent(segment).is_some_and(|segment| {
            !matches!(&*segment, "" | "." | "..")
                && !segment.contains(['/', '\\'])
                && !segment.chars().any(char::is_control)
        })
    };
    match path.strip_prefix('/') {
        Some(below) if below.split('/').all(is_good) => Ok(path.to_owned()),
        _ => Err(ApiError::NoSuchPath),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Option<GitTarget>, ApiError> {
        super::parse(rest, &Config::default())
    }

    fn parse_other(rest: &str) -> Result<Option<GitTarget>, ApiError> {
        super::parse_other(rest, &Config::default())
    }

    fn parsed(rest: &str) -> (String, Spelling, Service) {
        let target = parse(rest).and_then(|target| match target {
            None => parse_other(rest),
            found => Ok(found),
        });
        let target = target.unwrap().unwrap();
        (target.repo.to_string(), target.spelling, target.service)
    }

    #[test]
    fn finds_what_a_url_asks_for() {
        let name = || "h.org/a/b".to_owned();

        assert_eq!(
            parsed("h.org/a/b/info/refs"),
            (name(), Spelling::Plain, Service::InfoRefs)
        );
        assert_eq!(
            parsed("h.org/a/b.git/git-upload-pack"),
            (name(), Spelling::WithGit, Service::UploadPack)
        );
        assert_eq!(
            parsed("h.org/a/b.git/git-receive-pack"),
            (name(), Spelling::WithGit, Service::ReceivePack)
        );
        let lfs = "/info/lfs/objects/batch".to_owned();
        assert_eq!(
            parsed("h.org/a/b/info/lfs/objects/batch"),
            (name(), Spelling::Plain, Service::Other(lfs))
        );
        let other = "/raw/x%20y".to_owned();
        assert_eq!(
            parsed("h.org/a/b.git/raw/x%20y"),
            (name(), Spelling::WithGit, Service::Other(other))
        );
        assert_eq!(parse("h.org/a/b/snapshot.tar.zst").unwrap(), None);
        assert_eq!(parse_other("h.org/a/b/snapshot.tar.zst").unwrap(), None);
    }

    #[test]
    fn refuses_paths_that_leave_the_repository() {
        for bad in [
            "h.org/../x/info/refs",
            "h.org/%2e%2e/x/info/refs",
            "h.org/-x/git-upload-pack",
            "h.org/a%2Fb/info/refs",
            "h.org/info/refs",
            "h.org/a/info/lfs/../../../b/info/refs",
            "h.org/a/info/lfs/%2e%2e/x",
            "h.org/a/info/lfs/x%2f..",
            "h.org/a.git/x//y",
            "h.org/a.git/..%5cx",
            "h.org/a.git/%0a",
        ] {
            let found = parse(bad).and_then(|found| match found {
                None => parse_other(bad),
                found => Ok(found),
            });
            assert!(found.is_err(), "{bad}: {found:?}");
        }
    }
}
