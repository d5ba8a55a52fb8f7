//! Decodes and checks the parts of a URL path.

use cachewfs_format::RepoName;

use crate::base::decode_percent;
use crate::config::Config;

/// The reason why a URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum UrlError {
    #[error("invalid repository name in the URL")]
    BadRepoName(#[source] cachewfs_format::Error),
    #[error("invalid percent-encoding, or an encoded slash, in the repository name of the URL")]
    BadEncoding,
    #[error("invalid snapshot id in the URL")]
    BadSnapshotId(#[source] cachewfs_format::Error),
    #[error("unknown path")]
    NoSuchPath,
}

/// Parses the name of a repository in a URL path, and returns it in its canonical spelling.
///
/// Percent-encoded characters must be valid in a name after decoding, and an encoded slash is
/// refused.
pub(super) fn parse_repo(path: &str, names: &Config) -> Result<RepoName, UrlError> {
    let decode = |segment: &str| match decode_percent(segment) {
        Some(decoded) if !decoded.contains('/') => Ok(decoded),
        _ => Err(UrlError::BadEncoding),
    };
    let segments: Vec<String> = path.split('/').map(decode).collect::<Result<_, _>>()?;
    let repo = RepoName::parse(&segments.join("/")).map_err(UrlError::BadRepoName)?;
    Ok(names.canonical(repo))
}

/// Returns `path`, or an error if a server could resolve it to a path outside of the repository.
pub(super) fn check_path(path: &str) -> Result<String, UrlError> {
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
        _ => Err(UrlError::NoSuchPath),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_name_one_repository_if_upstream_ignores_case() {
        let names = Config::default();
        for spelled in ["Org/Repo", "org/repo", "oRG/%52epo", "ORG/REPO.git"] {
            let of = |host: &str| parse_repo(&format!("{host}/{spelled}"), &names);

            assert_eq!(of("github.com").unwrap().as_str(), "github.com/org/repo");
            assert_ne!(of("h.org").unwrap().as_str(), "h.org/Org/repo");
        }
        let kept = parse_repo("h.org/Org/Repo", &names).unwrap();
        assert_eq!(kept.as_str(), "h.org/Org/Repo");
    }
}
