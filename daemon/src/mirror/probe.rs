//! Asking upstream itself why git failed.
//!
//! git has one exit code for everything that goes wrong with an upstream, and its messages differ
//! from version to version. So the daemon looks for itself, once, after a failure: into the
//! directory, or with a request as git would send it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::Url;
use tracing::Instrument as _;

use super::{Git, GitError, Upstream};
use crate::traces;

/// How long upstream may take to answer before it counts as silent.
const LIMIT: Duration = Duration::from_secs(20);
/// How long git may take to print a value of its configuration.
const LOCAL_LIMIT: Duration = Duration::from_secs(20);

/// Upstream's answer to the question whether it has a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It has no such repository, or shows it to nobody without credentials.
    Missing,
    /// It refuses the daemon, or the credentials that the daemon has.
    Denied,
    /// There is no connection.
    Unreachable,
    /// It is silent.
    TimedOut,
    /// It answers with an error.
    Fails,
    /// It answers.
    Answers,
}

/// Looks whether upstream has the repository, and shows it. Blocks the thread.
pub(super) fn probe(git: &Git, upstream: &Upstream) -> Probe {
    let Some(url) = url_of_git(git, upstream) else {
        return Probe::Fails;
    };
    match url.scheme() {
        "file" => url
            .to_file_path()
            .map_or(Probe::Missing, |path| of_directory(&path)),
        "http" | "https" => of_server(git, upstream, url),
        // The operator's git configuration has it rewritten to a protocol that only git speaks.
        _ => Probe::Fails,
    }
}

/// Returns the URL that git makes of upstream's. The operator's git configuration may rewrite it
/// (`url.<base>.insteadOf`), and ours adds credentials.
fn url_of_git(git: &Git, upstream: &Upstream) -> Option<Url> {
    let printed = git
        .command("ls-remote")
        .secrets(&upstream.git_secrets(git).ok()?)
        .args(["--get-url", "--", upstream.url()])
        .time_limit(LOCAL_LIMIT)
        .text();
    Url::parse(&printed.ok()?).ok()
}

/// Looks at an upstream on this machine.
fn of_directory(directory: &Path) -> Probe {
    let mut found = Probe::Missing;
    for head in git_directories(directory).map(|place| place.join("HEAD")) {
        match std::fs::File::open(head) {
            Ok(_) => return Probe::Answers,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {}
                ErrorKind::PermissionDenied => found = Probe::Denied,
                _ => return Probe::Fails,
            },
        }
    }
    found
}

/// Returns whether git finds a repository at `directory`.
pub(crate) fn is_repository(directory: &Path) -> bool {
    of_directory(directory) != Probe::Missing
}

/// Returns the places where git looks for a repository that is asked for by a path (`enter_repo`).
fn git_directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    ["/.git", "", ".git/.git", ".git"]
        .into_iter()
        .map(|suffix| {
            let mut place = directory.as_os_str().to_owned();
            place.push(suffix);
            place.into()
        })
}

/// Asks a server, as git begins a fetch (`gitprotocol-http(5)`).
fn of_server(git: &Git, upstream: &Upstream, url: Url) -> Probe {
    let Ok(login) = login_of_git(git, upstream, &url) else {
        return Probe::Fails;
    };
    let is_anonymous = login.is_none();
    let Some(mut url) = info_refs(url) else {
        return Probe::Fails;
    };
    // The header has the credentials: a URL gets into errors.
    url.set_username("").ok();
    url.set_password(None).ok();
    let mut request = upstream
        .client()
        .get(url)
        .header("git-protocol", "version=2")
        .header("user-agent", "git/cachewfsd")
        .timeout(LIMIT);
    if let Some((user, password)) = login {
        request = request.basic_auth(user, Some(password));
    }
    let span = traces::upstream_span("probe", upstream.authority());
    let ask = git.unless_stopping(request.send().instrument(span.clone()));
    let Some(answer) = git.wait_for(ask) else {
        return Probe::Fails;
    };
    traces::note_answer(&span, &answer);
    match answer {
        Ok(answer) => of_status(answer.status(), is_anonymous),
        Err(error) if error.is_timeout() => Probe::TimedOut,
        Err(_) => Probe::Unreachable,
    }
}

fn info_refs(mut url: Url) -> Option<Url> {
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["info", "refs"]);
    url.set_query(Some("service=git-upload-pack"));
    Some(url)
}

/// Returns what the status of an answer means. Servers that don't want to tell whether there is a
/// private repository answer 401 to anonymous requests for names that they don't have.
fn of_status(status: StatusCode, is_anonymous: bool) -> Probe {
    match status {
        StatusCode::UNAUTHORIZED if is_anonymous => Probe::Missing,
        StatusCode::NOT_FOUND | StatusCode::GONE => Probe::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Probe::Denied,
        status if status.is_success() || status.is_redirection() => Probe::Answers,
        _ => Probe::Fails,
    }
}

/// Returns the user and password that git shows to the server of `url`, from whichever helper; `None`
/// if git has none. Fails if a helper can't be asked.
fn login_of_git(
    git: &Git,
    upstream: &Upstream,
    url: &Url,
) -> Result<Option<(String, String)>, GitError> {
    let filled = git
        .command("credential")
        .secrets(&upstream.git_secrets(git)?)
        .args(["fill"])
        .input(format!("url={url}\n\n"))
        .time_limit(LOCAL_LIMIT)
        .text();
    let printed = match filled {
        Err(error) if error.exit_code().is_some() => return Ok(None),
        printed => printed?,
    };
    let value = |key: &str| {
        let mut pairs = printed.lines().filter_map(|line| line.split_once('='));
        pairs.find_map(|(found, value)| (found == key).then(|| value.to_owned()))
    };
    Ok(value("username").zip(value("password")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_with_credentials_and_without() {
        for (status, anonymous, known) in [
            (200, Probe::Answers, Probe::Answers),
            (401, Probe::Missing, Probe::Denied),
            (403, Probe::Denied, Probe::Denied),
            (404, Probe::Missing, Probe::Missing),
            (410, Probe::Missing, Probe::Missing),
            (500, Probe::Fails, Probe::Fails),
            // git follows it.
            (302, Probe::Answers, Probe::Answers),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_status(status, true), anonymous, "{status}");
            assert_eq!(of_status(status, false), known, "{status}");
        }
    }

    #[test]
    fn a_repository_is_found_where_git_finds_it() {
        let root = tempfile::tempdir().unwrap();
        for place in ["bare", "named.git", "worktree/.git"] {
            let directory = root.path().join(place);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::File::create(directory.join("HEAD")).unwrap();
        }

        for name in ["bare", "named", "named.git", "worktree"] {
            assert!(is_repository(&root.path().join(name)), "{name}");
        }
        assert!(!is_repository(&root.path().join("other")));
        assert!(!is_repository(root.path()));
    }

    #[test]
    fn the_request_is_the_first_of_a_fetch() {
        for url in ["https://h.org/a/b", "https://h.org/a/b/"] {
            let url = info_refs(Url::parse(url).unwrap()).unwrap();
            let expected = "https://h.org/a/b/info/refs?service=git-upload-pack";
            assert_eq!(url.as_str(), expected);
        }
    }
}
