//! Authorization: a layer around all routes that decides whether a request is answered.
//!
//! The action is derived from path and method. A path that is unknown here needs the `admin`
//! action, so that a route that somebody forgets to add here is closed.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::RepoName;
use cachewfs_format::api::REPOS_PATH;

use super::error::ApiError;
use super::routes::{App, UrlTarget, parse_repo, parse_url_target};
use crate::auth::{Action, Caller, Decision, PresentedToken};
use crate::config::Config;
use crate::listener::ClientAddress;
use crate::mirror::MirrorError;
use crate::repository::RepositoryError;

/// Headers that a proxy adds, or a browser on behalf of a page. A request with one of them doesn't
/// come from a program on this machine.
const NOT_LOCAL: &[&str] = &["forwarded", "origin", "via", "x-forwarded-for", "x-real-ip"];

/// Calls that change something: the last part of the path, after the name of the repository.
const ADMIN_CALLS: &[&str] = &[
    "forget", "publish", "refresh", "relayout", "repack", "restore", "verify",
];

/// The new name of a repository, as an extension of a response that mentions it. If the caller may
/// not do the same to the new name, the answer becomes that for an absent repository.
#[derive(Clone, Debug)]
pub(in crate::http) struct MovedTo(pub(in crate::http) RepoName);

/// Passes the request on to its route, or answers with the reason of the refusal.
pub(super) async fn authorize(
    State(app): State<Arc<App>>,
    ConnectInfo(ClientAddress(address)): ConnectInfo<ClientAddress>,
    mut request: Request,
    next: Next,
) -> Response {
    let Ok(presented) = PresentedToken::take(request.headers_mut()) else {
        return ApiError::DuplicateCredentials.into_response();
    };
    if !app.access.admits(presented.as_ref()) {
        return ApiError::Unauthenticated.into_response();
    }
    // One configuration for the whole request, so that policy and handler use the same canonical
    // name.
    let names = app.registry.config();
    let (action, repo) = match requested_action(&request, &names) {
        Ok(RequestedAction::Public) => return next.run(request).await,
        Ok(RequestedAction::Checked(action, repo)) => (action, repo),
        Err(error) => return error.into_response(),
    };
    let Some(subject) = app.access.identify(presented.as_ref()) else {
        return ApiError::UnknownToken.into_response();
    };
    let address = address.ip().to_canonical();
    let caller = Caller {
        subject,
        method: request.method().clone(),
        address,
        is_loopback: address.is_loopback() && is_local(request.headers()),
    };
    let path = request.uri().path().to_owned();
    if let Err(refusal) = check(&app, &caller, action, repo.as_ref()) {
        return refusal.at(&app, &path).into_response();
    }
    // The handler reads both from here, so it can't act on another name or for another caller.
    request.extensions_mut().insert(names);
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    // The answer would tell the caller that the other repository exists.
    if let (Some(MovedTo(to)), Some(repo)) = (response.extensions().get(), repo)
        && check(&app, &caller, action, Some(to)).is_err()
    {
        return Refusal::Absent(repo).at(&app, &path).into_response();
    }
    if !caller.is_anonymous() {
        keep_out_of_shared_caches(response.headers_mut());
    }
    response
}

/// The action that a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum RequestedAction {
    /// Liveness and readiness, which everybody may read.
    Public,
    Checked(Action, Option<RepoName>),
}

fn requested_action(request: &Request, names: &Config) -> Result<RequestedAction, ApiError> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let method = request.method();
    let is_read = method == Method::GET || method == Method::HEAD;
    if let Some(rest) = path.strip_prefix("/git/") {
        return Ok(requested_git_action(
            parse_url_target(rest, names)?,
            query,
            is_read,
        ));
    }
    let admin = RequestedAction::Checked(Action::Admin, None);
    Ok(match path {
        "/healthz" | "/readyz" => RequestedAction::Public,
        "/" | "/metrics" | "/api/v1/status" if is_read => {
            RequestedAction::Checked(Action::Metrics, None)
        }
        _ if is_read && path.starts_with("/status/") => {
            RequestedAction::Checked(Action::Metrics, None)
        }
        REPOS_PATH if is_read => RequestedAction::Checked(Action::Read, None),
        _ => match path
            .strip_prefix(REPOS_PATH)
            .and_then(|rest| rest.strip_prefix('/'))
        {
            Some(name) if is_read => {
                RequestedAction::Checked(Action::Read, Some(parse_repo(name, names)?))
            }
            Some(name) => {
                RequestedAction::Checked(Action::Admin, parse_repo(without_call(name), names).ok())
            }
            None => admin,
        },
    })
}

fn requested_git_action(target: UrlTarget, query: Option<&str>, is_read: bool) -> RequestedAction {
    let (action, repo) = match target {
        // A refresh and `ensure-refs` count as reads: they only bring the mirror up to date.
        UrlTarget::Repository(repo, _) => (Action::Read, repo),
        UrlTarget::GitProtocol(target) => {
            let action = if target.is_push(query, is_read) {
                Action::Push
            } else {
                Action::Read
            };
            (action, target.into_repo())
        }
    };
    RequestedAction::Checked(action, Some(repo))
}

fn without_call(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some((repo, call)) if ADMIN_CALLS.contains(&call) => repo,
        _ => name,
    }
}

/// Returns whether no header shows that the request began on another machine.
fn is_local(headers: &HeaderMap) -> bool {
    !NOT_LOCAL.iter().any(|name| headers.contains_key(*name))
}

fn check(
    app: &App,
    caller: &Caller,
    action: Action,
    repo: Option<&RepoName>,
) -> Result<(), Refusal> {
    let decision = app.access.decide(caller, action, repo);
    match (
        decision.map_err(|error| Refusal::Error(error.into()))?,
        repo,
    ) {
        (Decision::Allowed, _) => Ok(()),
        (Decision::Hidden, Some(repo)) => Err(Refusal::Absent(repo.clone())),
        (Decision::Denied, _) | (Decision::Hidden, None) => {
            let action = action.as_str();
            Err(Refusal::Error(
                if caller.is_anonymous() && app.access.has_tokens() {
                    ApiError::Unauthenticated
                } else {
                    ApiError::Forbidden { action }
                },
            ))
        }
    }
}

/// The reason why a request is refused.
enum Refusal {
    Error(ApiError),
    /// The answer must be that for a repository that doesn't exist.
    Absent(RepoName),
}

impl Refusal {
    /// Returns the error of the answer. For a hidden repository, this is the error that the same
    /// path gives for an absent one, so that the answer doesn't tell them apart.
    fn at(self, app: &App, path: &str) -> ApiError {
        let repo = match self {
            Self::Error(error) => return error,
            Self::Absent(repo) => repo,
        };
        match app.registry.check(&repo) {
            Ok(_) if path.starts_with(REPOS_PATH) => ApiError::UnknownRepo { repo },
            Ok(upstream) => {
                let url = upstream.url().to_owned();
                let error = MirrorError::NotFound { url };
                ApiError::Repository(RepositoryError::Mirror(Arc::new(error)))
            }
            Err(error) => error.into(),
        }
    }
}

/// Returns whether `caller` may read `repo`, for answers about more than one repository.
pub(super) fn may_read(app: &App, caller: &Caller, repo: &RepoName) -> bool {
    // If the policy fails, the check of the request itself reports that; here it allows nothing.
    matches!(
        app.access.decide(caller, Action::Read, Some(repo)),
        Ok(Decision::Allowed)
    )
}

/// Turns `Cache-Control: public` into `private`: other callers may not be allowed to read the
/// answer.
fn keep_out_of_shared_caches(headers: &mut HeaderMap) {
    let control = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok());
    let private = control.and_then(|control| control.strip_prefix("public"));
    let private = private.and_then(|rest| HeaderValue::from_str(&format!("private{rest}")).ok());
    if let Some(private) = private {
        headers.insert(header::CACHE_CONTROL, private);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn of(method: &str, uri: &str) -> RequestedAction {
        let request = Request::builder().method(method).uri(uri);
        requested_action(&request.body(Body::empty()).unwrap(), &Config::default()).unwrap()
    }

    #[test]
    fn every_request_needs_an_action() {
        let repo = || Some(RepoName::parse("h.org/a/b").unwrap());
        let action = |action| RequestedAction::Checked(action, repo());
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
        assert_eq!(of("GET", "/healthz"), RequestedAction::Public);
        assert_eq!(
            of("GET", "/metrics"),
            RequestedAction::Checked(Action::Metrics, None)
        );
        for (method, uri) in [
            ("GET", "/debug"),
            ("POST", "/metrics"),
            ("GET", "//git/h.org/a/b/info/refs"),
            ("POST", "/api/v1/repos"),
            ("GET", "/api/v1/reposx"),
        ] {
            assert_eq!(
                of(method, uri),
                RequestedAction::Checked(Action::Admin, None),
                "{uri}"
            );
        }
    }
}
