//! Asks upstream why a git command failed.
//!
//! git has one exit code for all failures of an upstream, and its messages differ between versions.
//! So the daemon finds out itself, once after each failure: it looks into the directory, or sends
//! the request that git would send.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_format::RepoName;
use reqwest::StatusCode;
use reqwest::Url;
use tracing::Instrument as _;

use super::effective_url::effective_url_and_login;
use super::redirect::{MAX_REDIRECTS, UpstreamBase, is_redirect};
use super::{Git, Login, Upstream};
use crate::traces;

/// How long upstream may take to answer before the probe times out.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The first path that git requests below the URL of a repository.
const INFO_REFS: &str = "/info/refs";

/// The result of asking upstream for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Upstream has no such repository, or hides it from requests without credentials.
    Missing,
    /// Upstream has the repository at another URL. Later requests should go there.
    At(String),
    /// Upstream has the repository under another name.
    Moved(RepoName),
    /// Upstream redirects to a URL that is not one of its repositories.
    Redirects,
    /// Upstream refuses the daemon, or the credentials that the daemon has.
    Denied,
    /// The daemon can't connect to upstream.
    Unreachable,
    /// Upstream doesn't answer in time.
    TimedOut,
    /// Upstream answers with an error.
    Fails,
    /// Upstream answers and shows the repository.
    Answers,
}

/// Finds out whether upstream has the repository and shows it, and at which URL. Blocks the thread.
pub(super) fn probe(git: &Git, upstream: &Upstream) -> Probe {
    let Ok((url, login)) = effective_url_and_login(git, upstream, upstream.url()) else {
        return Probe::Fails;
    };
    match url.scheme() {
        "file" => url
            .to_file_path()
            .map_or(Probe::Missing, |path| of_directory(&path)),
        "http" | "https" => of_server(git, upstream, (url, login)),
        // The operator's git configuration rewrites the URL to a protocol that only git speaks.
        _ => Probe::Fails,
    }
}

/// Probes an upstream that is a directory on this machine.
fn of_directory(directory: &Path) -> Probe {
    let mut found = Probe::Missing;
    for head in git_directories(directory).map(|target| target.join("HEAD")) {
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

/// Returns the paths where git looks for the repository of a path, in order (`enter_repo` of git).
pub(super) fn git_directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    ["/.git", "", ".git/.git", ".git"]
        .into_iter()
        .map(|suffix| {
            let mut target = directory.as_os_str().to_owned();
            target.push(suffix);
            target.into()
        })
}

/// Probes a server with the first request of a fetch (`gitprotocol-http(5)`).
fn of_server(git: &Git, upstream: &Upstream, (url, login): (Url, Option<Login>)) -> Probe {
    let (base, asked) = (UpstreamBase::below(upstream, url.as_str()), info_refs(url));
    let Some(asked) = asked else {
        return Probe::Fails;
    };
    let ask = ask_and_follow(upstream, base.as_ref(), (asked, login));
    let ask = git.unless_stopping(tokio::time::timeout(TIMEOUT, ask));
    match git.wait_for(ask) {
        None => Probe::Fails,
        Some(Err(_)) => Probe::TimedOut,
        Some(Ok(found)) => found,
    }
}

/// Requests the refs at `asked`, and follows redirects below `base`.
async fn ask_and_follow(
    upstream: &Upstream,
    base: Option<&UpstreamBase>,
    (asked, login): (Url, Option<Login>),
) -> Probe {
    let mut at = asked.clone();
    // The request carries credentials. `UpstreamBase::follow` therefore allows only URLs with the
    // origin and path prefix of the configured upstream. The client itself follows no redirects.
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
            // A redirect alone proves nothing. Its target counts only if the repository is there.
            return match base {
                Some(base) if found == Probe::Answers && at != asked => of_target(base, &at),
                _ => found,
            };
        }
        let next = base.and_then(|base| base.follow(&at, answer.headers()));
        let Some(next) = next else { break };
        at = next;
    }
    Probe::Redirects
}

/// Returns the result for an upstream that answers at `at`, after redirects.
fn of_target(base: &UpstreamBase, at: &Url) -> Probe {
    match base.target(at, INFO_REFS) {
        Some(target) if base.is_own(&target) => {
            let mut at = at.clone();
            at.set_query(None);
            let url = at.as_str();
            Probe::At(url.strip_suffix(INFO_REFS).unwrap_or(url).to_owned())
        }
        Some(target) => Probe::Moved(target.repo),
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

/// Returns the result for the status of a response.
///
/// To hide whether a private repository exists, servers answer 401 to anonymous requests for
/// unknown names, too. So an anonymous 401 counts as missing.
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
    fn an_anonymous_401_is_a_missing_repository() {
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
    fn finds_a_repository_at_each_path_that_git_tries() {
        let root = tempfile::tempdir().unwrap();
        for target in ["bare", "named.git", "worktree/.git"] {
            let directory = root.path().join(target);
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
    fn the_request_is_the_first_request_of_a_fetch() {
        for url in ["https://h.org/a/b", "https://h.org/a/b/"] {
            let url = info_refs(Url::parse(url).unwrap()).unwrap();
            let expected = "https://h.org/a/b/info/refs?service=git-upload-pack";
            assert_eq!(url.as_str(), expected);
        }
    }
}
