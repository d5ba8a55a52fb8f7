//! Sends a request to the configured upstream, and passes its answer back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::Url;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tracing::{Instrument as _, debug};

use super::head::UpstreamHead;
use crate::http::error::GitHttpError;
use crate::http::git_protocol::body::ReceivedBody;
use crate::http::git_protocol::headers;
use crate::http::git_protocol::server::{GitCounters, GitServer};
use crate::http::request::client;
use crate::http::route::{GitTarget, Service, Spelling};
use crate::mirror::{MAX_REDIRECTS, RedirectTarget, Upstream, UpstreamBase, is_redirect};
use crate::traces::{self, Cause};

/// A request to upstream. It contains secrets, so its `Debug` output shows only method and host.
pub(in crate::http::git_protocol) struct UpstreamRequest {
    pub(in crate::http::git_protocol) base: UpstreamBase,
    pub(in crate::http::git_protocol) url: Url,
    /// The path below the repository.
    tail: String,
    pub(in crate::http::git_protocol) method: Method,
    pub(in crate::http::git_protocol) headers: HeaderMap,
    pub(in crate::http::git_protocol) body: UpstreamBody,
    /// The daemon's own credentials, if the client sent none. All such clients may share the
    /// answer.
    pub(in crate::http::git_protocol) own_authorization: Option<HeaderValue>,
    /// The address of the client, whose share of the permits is used.
    pub(in crate::http::git_protocol) client: IpAddr,
    redirects: RedirectPolicy,
    /// The trace of the client's request: another task may send this one.
    cause: Cause,
}

/// How a redirect to another URL of the same repository is treated.
///
/// A redirect to another repository is always translated: the client is redirected to the other
/// repository below this daemon, and the policy decides whether the client may read that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RedirectPolicy {
    /// The daemon follows it with the same method, so that all clients of a shared answer get the
    /// result. The method can stay, because asking git for a pack changes nothing.
    Followed,
    /// The client is redirected to the same repository under the other spelling below this daemon.
    Translated,
}

/// The body of a request to upstream.
#[derive(Debug)]
pub(in crate::http::git_protocol) enum UpstreamBody {
    Nothing,
    /// Passed on while it arrives from the client.
    Stream(Body),
    Received(Arc<ReceivedBody>),
}

impl std::fmt::Debug for UpstreamRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.base.host();
        write!(formatter, "UpstreamRequest({} to {host})", self.method)
    }
}

impl UpstreamRequest {
    /// Creates a request that is passed on unchanged: a push, LFS or another path. Only the
    /// client's own credentials are used, so upstream decides what the client may do.
    pub(in crate::http::git_protocol) fn as_it_comes(
        upstream: &Upstream,
        target: &GitTarget,
        parts: &Parts,
        body: Body,
    ) -> Result<Self, GitHttpError> {
        let mut url = url(upstream.url(), target)?;
        url.set_query(parts.uri.query());
        let mut headers = headers::to_upstream(&parts.headers);
        let has_body = parts.headers.contains_key(header::CONTENT_LENGTH)
            || parts.headers.contains_key(header::TRANSFER_ENCODING);
        let body = if has_body {
            headers.extend(headers::of_the_body(&parts.headers));
            UpstreamBody::Stream(body)
        } else {
            UpstreamBody::Nothing
        };
        Ok(Self {
            base: UpstreamBase::of(upstream).ok_or(GitHttpError::NotHttp)?,
            url,
            tail: tail(target).to_owned(),
            method: parts.method.clone(),
            headers,
            body,
            own_authorization: None,
            client: client(parts),
            redirects: RedirectPolicy::Translated,
            cause: Cause::current(),
        })
    }

    /// Creates a request to read the repository, for which the daemon's own credentials may be
    /// used. The client's own take precedence.
    pub(in crate::http::git_protocol) fn to_read(
        upstream: &Upstream,
        target: &GitTarget,
        (headers, client): (&HeaderMap, IpAddr),
        body: Option<Arc<ReceivedBody>>,
    ) -> Result<Self, GitHttpError> {
        let mut url = url(upstream.url(), target)?;
        let (method, body) = if let Some(body) = body {
            (Method::POST, UpstreamBody::Received(body))
        } else {
            url.set_query(Some("service=git-upload-pack"));
            (Method::GET, UpstreamBody::Nothing)
        };
        Ok(Self {
            base: UpstreamBase::of(upstream).ok_or(GitHttpError::NotHttp)?,
            url,
            tail: tail(target).to_owned(),
            method,
            headers: headers::to_upstream_to_read(headers),
            body,
            own_authorization: None,
            client,
            redirects: RedirectPolicy::Followed,
            cause: Cause::current(),
        })
    }
}

/// Returns the URL of a request, which is always below the configured upstream.
fn url(base: &str, target: &GitTarget) -> Result<Url, GitHttpError> {
    let suffix = match target.spelling {
        Spelling::Plain => "",
        Spelling::WithGit => ".git",
    };
    let tail = tail(target);
    Url::parse(&format!("{base}{suffix}{tail}")).map_err(|_| GitHttpError::NotHttp)
}

/// Returns the path below the repository.
fn tail(target: &GitTarget) -> &str {
    match &target.service {
        Service::InfoRefs(_) => "/info/refs",
        Service::UploadPack => "/git-upload-pack",
        Service::ReceivePack => "/git-receive-pack",
        Service::Other(path) => path,
    }
}

/// Passes a request on, and the answer back while it arrives.
pub(in crate::http::git_protocol) async fn pass_on(
    server: &GitServer,
    request: UpstreamRequest,
) -> Result<Response, GitHttpError> {
    let permit = server
        .upstream_permit(request.base.host(), request.client)
        .await?;
    let idle = server.config().git_http.idle_timeout;
    let (head, response) = send(server, request).await?;
    let body = server.relay.body(pieces(response, idle), permit);
    Ok(head.with(body))
}

/// Sends a request to upstream, and waits for the head of the answer.
pub(in crate::http::git_protocol) async fn send(
    server: &GitServer,
    request: UpstreamRequest,
) -> Result<(UpstreamHead, reqwest::Response), GitHttpError> {
    GitCounters::count(&server.counters.passed_on);
    // Without the query, which may carry a token.
    let (host, path) = (request.base.host(), request.url.path());
    debug!(host, path, method = %request.method, "Passing a request on to {host}");
    // A body that the client is still sending may take as long as a whole answer may.
    let limits = &server.config().git_http;
    let limit = match request.body {
        UpstreamBody::Nothing | UpstreamBody::Received(_) => limits.idle_timeout,
        UpstreamBody::Stream(_) => limits.answer_timeout,
    };
    let span = traces::pass_on_span(host, &request.cause);
    let sent =
        timeout(limit, send_and_follow(&server.context.client, request)).instrument(span.clone());
    let sent = sent.await;
    match &sent {
        Ok(Ok((head, _))) => traces::note_status(&span, head.status.as_u16()),
        Ok(Err(_)) => traces::note_error(&span, "upstream"),
        Err(_) => traces::note_error(&span, "timed_out"),
    }
    sent.unwrap_or(Err(GitHttpError::UpstreamTooSlow { limit }))
}

async fn send_and_follow(
    client: &reqwest::Client,
    request: UpstreamRequest,
) -> Result<(UpstreamHead, reqwest::Response), GitHttpError> {
    let UpstreamRequest {
        base,
        mut url,
        tail,
        method,
        mut headers,
        mut body,
        own_authorization,
        redirects,
        ..
    } = request;
    if let Some(own) = own_authorization {
        headers.insert(header::AUTHORIZATION, own);
    }
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client
            .request(method.clone(), url.clone())
            .headers(headers.clone());
        match &mut body {
            UpstreamBody::Nothing => {}
            UpstreamBody::Received(received) => request = request.body(body_of(received)?),
            UpstreamBody::Stream(body) => {
                // The body can be sent only once. Once is enough, because redirects of such a
                // request are translated, never followed.
                let stream = std::mem::take(body).into_data_stream();
                request = request.body(reqwest::Body::wrap_stream(stream));
            }
        }
        let response = request.send().await.map_err(failed)?;
        let mut head = UpstreamHead::of(&response);
        if !is_redirect(head.status) {
            return Ok((head, response));
        }
        // Only a URL below the configured upstream is followed or translated: the headers with the
        // credentials must not go to another server.
        let to = base.follow(&url, response.headers());
        let to = to.ok_or(GitHttpError::Redirected)?;
        let target = base.target(&to, &tail).ok_or(GitHttpError::Redirected)?;
        let is_own = base.is_own(&target);
        if redirects == RedirectPolicy::Translated || !is_own {
            // A redirect that leads back to the URL of this request would be followed in circles.
            let had_git_suffix = url.path().ends_with(&format!(".git{tail}"));
            if is_own && target.has_git_suffix == had_git_suffix {
                return Err(GitHttpError::Redirected);
            }
            let location = here(&target, &tail, to.query());
            let location = location.parse().map_err(|_| GitHttpError::Redirected)?;
            head.headers.insert(header::LOCATION, location);
            // The policy may hide the other repository from other clients.
            let no_store = HeaderValue::from_static("no-store");
            head.headers.insert(header::CACHE_CONTROL, no_store);
            head.moved_to = (!is_own).then_some(target.repo);
            return Ok((head, response));
        }
        url = to;
    }
    Err(GitHttpError::Redirected)
}

/// Returns the path and query below this daemon at which requests for `target` are passed on.
fn here(target: &RedirectTarget, tail: &str, query: Option<&str>) -> String {
    let suffix = if target.has_git_suffix { ".git" } else { "" };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/git/{}{suffix}{tail}{query}", target.repo)
}

fn body_of(received: &ReceivedBody) -> Result<reqwest::Body, GitHttpError> {
    if let Some(whole) = received.whole() {
        return Ok(whole.clone().into());
    }
    let file = tokio::fs::File::from_std(received.rewound()?);
    Ok(reqwest::Body::wrap_stream(ReaderStream::new(file)))
}

/// Returns the body of upstream's answer while it arrives. Each piece may take `idle`.
pub(in crate::http::git_protocol) fn pieces(
    response: reqwest::Response,
    idle: Duration,
) -> impl Stream<Item = Result<Bytes, GitHttpError>> + Send + 'static {
    stream::try_unfold(response, move |mut response| async move {
        let chunk = timeout(idle, response.chunk()).await;
        let chunk = chunk.map_err(|_| GitHttpError::UpstreamTooSlow { limit: idle })?;
        Ok(chunk.map_err(failed)?.map(|bytes| (bytes, response)))
    })
}

fn failed(error: reqwest::Error) -> GitHttpError {
    GitHttpError::Upstream(Arc::new(error.without_url()))
}
