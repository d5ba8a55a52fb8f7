//! Asking upstream itself why git failed.
//!
//! git has one exit code for everything that goes wrong with an upstream, and its messages differ
//! from version to version. So the daemon looks for itself, once, after a failure: into the
//! directory, or with a request as git would send it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_format::RepoName;
use reqwest::StatusCode;
use reqwest::Url;
use tracing::Instrument as _;

use super::as_git::as_git;
use super::redirect::{Base, MAX_REDIRECTS, is_redirect};
use super::{Git, Login, Upstream};
use crate::traces;

/// How long upstream may take to answer before it counts as silent.
const LIMIT: Duration = Duration::from_secs(20);
/// The path that git asks for first, below the URL of a repository.
const INFO_REFS: &str = "/info/refs";

/// Upstream's answer to the question whether it has a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It has no such repository, or shows it to nobody without credentials.
    Missing,
    /// It has the repository at another URL, which is the one to ask.
    At(String),
    /// It has the repository under another name.
    Moved(RepoName),
    /// It sends the daemon to a place that is not one of its repositories.
    Redirects,
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

/// Looks whether upstream has the repository, and shows it, and where. Blocks the thread.
pub(super) fn probe(git: &Git, upstream: &Upstream) -> Probe {
    let Ok((url, login)) = as_git(git, upstream, upstream.url()) else {
        return Probe::Fails;
    };
    match url.scheme() {
        "file" => url
            .to_file_path()
            .map_or(Probe::Missing, |path| of_directory(&path)),
        "http" | "https" => of_server(git, upstream, (url, login)),
        // The operator's git configuration has it rewritten to a protocol that only git speaks.
        _ => Probe::Fails,
    }
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
pub(super) fn git_directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    ["/.git", "", ".git/.git", ".git"]
        .into_iter()
        .map(|suffix| {
            let mut place = directory.as_os_str().to_owned();
            place.push(suffix);
            place.into()
        })
}

/// Asks a server, as git begins a fetch (`gitprotocol-http(5)`).
fn of_server(git: &Git, upstream: &Upstream, (url, login): (Url, Option<Login>)) -> Probe {
    let (base, asked) = (Base::below(upstream, url.as_str()), info_refs(url));
    let Some(asked) = asked else {
        return Probe::Fails;
    };
    let ask = ask_and_follow(upstream, base.as_ref(), (asked, login));
    let ask = git.unless_stopping(tokio::time::timeout(LIMIT, ask));
    match git.wait_for(ask) {
        None => Probe::Fails,
        Some(Err(_)) => Probe::TimedOut,
        Some(Ok(found)) => found,
    }
}

/// Asks for refs at `asked`, and where upstream sends that request, below `base`.
async fn ask_and_follow(
    upstream: &Upstream,
    base: Option<&Base>,
    (asked, login): (Url, Option<Login>),
) -> Probe {
    let mut at = asked.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = upstream
            .client()
            .get(at.clone())
            .header("git-protocol", "version=2")
            .header("user-agent", "git/cachewfsd");
        if let Some(login) = &login {
            request = request.basic_auth(&login.user, Some(&login.secret));
        }
        let span = traces::upstream_span("probe", upstream.authority());
        let answer = request.send().instrument(span.clone()).await;
        traces::note_answer(&span, &answer);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return Probe::TimedOut,
            Err(_) => return Probe::Unreachable,
        };
        if !is_redirect(answer.status()) {
            let found = of_status(answer.status(), login.is_none());
            return match base {
                Some(base) if found == Probe::Answers && at != asked => of_place(base, &at),
                _ => found,
            };
        }
        let next = base.and_then(|base| base.follow(&at, answer.headers()));
        let Some(next) = next else { break };
        at = next;
    }
    Probe::Redirects
}

/// Returns what it means that upstream answers at `at`.
fn of_place(base: &Base, at: &Url) -> Probe {
    match base.place(at, INFO_REFS) {
        Some(place) if base.is_own(&place) => {
            let mut at = at.clone();
            at.set_query(None);
            let url = at.as_str();
            Probe::At(url.strip_suffix(INFO_REFS).unwrap_or(url).to_owned())
        }
        Some(place) => Probe::Moved(place.repo),
        None => Probe::Redirects,
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
        status if status.is_success() => Probe::Answers,
        _ => Probe::Fails,
    }
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
