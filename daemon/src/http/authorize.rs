//! Authorization: a layer around all routes that decides whether a request is answered.
//!
//! The action follows from the [`Route`] of the request, which the handler reads, too. An unknown
//! path needs the `admin` action.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::RepoName;

use super::app::App;
use super::error::{ApiError, MovedTo};
use super::route::{ParsedUrl, Route};
use crate::auth::{Action, Caller, Decision, PresentedToken};
use crate::listener::ClientAddress;
use crate::mirror::MirrorError;
use crate::repository::RepositoryError;

/// Headers that a proxy adds, or a browser on behalf of a page. A request with one of them doesn't
/// come from a program on this machine.
const NOT_LOCAL: &[&str] = &["forwarded", "origin", "via", "x-forwarded-for", "x-real-ip"];

/// Passes the request on to its route, or answers with the reason of the refusal.
pub(super) async fn authorize(
    State(app): State<Arc<App>>,
    Extension(url): Extension<Arc<ParsedUrl>>,
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
    let route = match &url.route {
        Ok(route) => route,
        Err(error) => return ApiError::from(error.clone()).into_response(),
    };
    let Some(action) = route.action(request.method()) else {
        return next.run(request).await;
    };
    let repo = url.repo.as_ref();
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
    if let Err(refusal) = check(&app, &caller, action, repo) {
        return refusal.of(&app, route).into_response();
    }
    // The handler reads it from here, so it can't act for another caller.
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    // The answer would tell the caller that the other repository exists.
    if let (Some(MovedTo(to)), Some(repo)) = (response.extensions().get(), repo)
        && check(&app, &caller, action, Some(to)).is_err()
    {
        return Refusal::Absent(repo.clone())
            .of(&app, route)
            .into_response();
    }
    if !caller.is_anonymous() {
        keep_out_of_shared_caches(response.headers_mut());
    }
    response
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
    fn of(self, app: &App, route: &Route) -> ApiError {
        let repo = match self {
            Self::Error(error) => return error,
            Self::Absent(repo) => repo,
        };
        match app.context.check(&repo) {
            Ok(_) if matches!(route, Route::Repo(_) | Route::Call(..)) => {
                ApiError::UnknownRepo { repo }
            }
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
