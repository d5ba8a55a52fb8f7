//! Parses the URL of a repository that a user typed.

use cachewfs_format::RepoName;

use crate::error::CliError;

/// Returns the name of the repository at `url`.
///
/// `url` is `https://host/path`, `git@host:path`, `ssh://git@host/path` or `host/path`, with or
/// without a user and a final `.git`.
pub(crate) fn repo_name(url: &str) -> Result<RepoName, CliError> {
    if is_path(url) || url.starts_with("file://") {
        let url = url.to_owned();
        return Err(CliError::LocalPath { url });
    }
    let without_scheme = url.split_once("://").map(|(_, rest)| rest);
    let name = match without_scheme {
        Some(rest) => strip_user(rest).to_owned(),
        // The form of scp(1): a colon before the first slash, with no port after it.
        None => match strip_user(url).split_once(':') {
            Some((host, path)) if !host.contains('/') && !starts_with_port(path) => {
                format!("{host}/{path}")
            }
            _ => strip_user(url).to_owned(),
        },
    };
    RepoName::parse(name.trim_end_matches('/')).map_err(|error| CliError::BadUrl {
        url: without_secrets(url),
        reason: match error {
            cachewfs_format::Error::BadRepoName { reason, .. } => reason.to_owned(),
            other => other.to_string(),
        },
    })
}

/// Returns whether a person can only mean a path with `text`.
pub(crate) fn is_path(text: &str) -> bool {
    let starts = ["/", "./", "../", "~"];
    matches!(text, "." | "..") || starts.iter().any(|start| text.starts_with(start))
}

/// Returns the name of the directory that `git clone` would create for `repo`.
pub(crate) fn directory_name(repo: &RepoName) -> &str {
    repo.path().rsplit('/').next().unwrap_or_default()
}

/// Returns the URL of the remote `origin` in a clone of `repo`.
///
/// `typed` is the user's argument, `published` the URL that the snapshot has.
pub(crate) fn origin_url(typed: &str, repo: &RepoName, published: Option<&str>) -> String {
    let is_full_url = typed.contains("://") || typed.contains('@');
    // The user may have chosen another protocol or another user than the daemon on purpose, so the
    // argument becomes the URL of the remote. A name such as `github.com/org/repo` is no URL for
    // git.
    match published {
        _ if is_full_url => typed.to_owned(),
        Some(url) => url.to_owned(),
        None => format!("https://{repo}"),
    }
}

fn strip_user(rest: &str) -> &str {
    let authority_len = rest.find('/').unwrap_or(rest.len());
    match rest.split_at(authority_len).0.rfind('@') {
        Some(at) => rest.split_at(at + 1).1,
        None => rest,
    }
}

fn starts_with_port(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns `url` without user and password, for messages.
pub(crate) fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", strip_user(rest)),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_one_repository() {
        for url in [
            "https://github.com/org/repo",
            "https://github.com/org/repo.git",
            "https://user:secret@github.com/org/repo/",
            "ssh://git@github.com/org/repo.git",
            "git@github.com:org/repo.git",
            "github.com/org/repo",
        ] {
            assert_eq!(
                repo_name(url).unwrap().as_str(),
                "github.com/org/repo",
                "{url}"
            );
        }
        assert_eq!(
            repo_name("localhost:3000/a/b").unwrap().as_str(),
            "localhost:3000/a/b"
        );
    }

    #[test]
    fn secrets_are_not_in_errors() {
        let error = repo_name("https://user:secret@github.com").unwrap_err();

        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
