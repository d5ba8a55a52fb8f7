//! The one place that decides whether a request is answered: a layer around all routes.
//!
//! What a route does is told from its path and method; what isn't known here is for administrators,
//! so that a route that is forgotten is closed.

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

/// Headers by which a proxy, or a browser on behalf of a page, shows that the request is not that of a
/// program on this machine.
const NOT_LOCAL: &[&str] = &["forwarded", "origin", "via", "x-forwarded-for", "x-real-ip"];

/// What may follow the name of a repository in the path of a call that changes something.
const ADMIN_CALLS: &[&str] = &[
    "forget", "publish", "refresh", "relayout", "repack", "restore", "verify",
];

/// An extension of an answer that names another repository, because upstream has this one under that name. A
/// caller that may not do the same there gets the answer for a repository that is absent.
#[derive(Clone, Debug)]
pub(in crate::http) struct MovedTo(pub(in crate::http) RepoName);

/// Answers the request, or says why not.
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
    // One configuration for the whole request, so that policy and handler see one name.
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
    request.extensions_mut().insert(names);
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
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

/// What a request is about to do.
#[derive(Debug, PartialEq, Eq)]
enum RequestedAction {
    /// Anyone may: whether the daemon lives.
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
        // Asking for news is reading: it changes nothing but what is read.
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

/// Whether nothing says that the request began elsewhere.
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

/// Why a request is not answered.
enum Refusal {
    Error(ApiError),
    /// The repository should look as if it didn't exist.
    Absent(RepoName),
}

impl Refusal {
    /// The error; for a hidden repository the one that the path gives for an absent one.
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

/// Whether `caller` may read `repo`: for answers about more than one.
pub(super) fn may_read(app: &App, caller: &Caller, repo: &RepoName) -> bool {
    // A policy that fails has been told of by the request's own check, or allows nothing.
    matches!(
        app.access.decide(caller, Action::Read, Some(repo)),
        Ok(Decision::Allowed)
    )
}

/// What one caller may read is not for all.
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
    fn each_request_has_an_action() {
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
