//! Passing a request on to the configured upstream, and its answer back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::Url;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tracing::{Instrument as _, debug};

use super::redirect::{Base, is_redirect};
use crate::http::git_protocol::answer::client;
use crate::http::git_protocol::body::Received;
use crate::http::git_protocol::server::{Counters, GitServer};
use crate::http::git_protocol::target::{Service, Spelling, Target};
use crate::http::git_protocol::{GitHttpError, headers};
use crate::mirror::Upstream;
use crate::traces::{self, Cause};

/// So many redirects of upstream's within itself are followed. The method stays: asking git for a pack
/// changes nothing.
const MAX_REDIRECTS: usize = 3;

/// A request as it goes on to upstream, with all that is secret in it.
pub(in crate::http::git_protocol) struct Passed {
    pub(in crate::http::git_protocol) base: Base,
    pub(in crate::http::git_protocol) url: Url,
    pub(in crate::http::git_protocol) method: Method,
    pub(in crate::http::git_protocol) headers: HeaderMap,
    pub(in crate::http::git_protocol) body: PassedBody,
    /// The daemon's own, where the client shows none. Upstream's answer is for all who show none.
    pub(in crate::http::git_protocol) own_authorization: Option<HeaderValue>,
    /// Takes a turn of this address's.
    pub(in crate::http::git_protocol) client: IpAddr,
    redirects: Redirects,
    /// Who asked: a task of its own may send it.
    cause: Cause,
}

/// What becomes of a redirect of upstream's within itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirects {
    /// The daemon follows it: whoever joins in need not know.
    Followed,
    /// The client is sent to where the daemon passes on to that place.
    Translated,
}

/// The body of such a request.
#[derive(Debug)]
pub(in crate::http::git_protocol) enum PassedBody {
    Nothing,
    /// As it comes from the client.
    Stream(Body),
    Received(Arc<Received>),
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Passed({} to {})", self.method, self.base.host)
    }
}

impl Passed {
    /// A request that is none of ours: everything comes from the client, what upstream lets it do too.
    pub(in crate::http::git_protocol) fn as_it_comes(
        upstream: &Upstream,
        target: &Target,
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
            PassedBody::Stream(body)
        } else {
            PassedBody::Nothing
        };
        Ok(Self {
            base: Base::of(upstream, target)?,
            url,
            method: parts.method.clone(),
            headers,
            body,
            own_authorization: None,
            client: client(parts),
            redirects: Redirects::Translated,
            cause: Cause::current(),
        })
    }

    /// A request to read the repository. The daemon's own credentials are good for that, as they are
    /// for the mirror; the client's go before.
    pub(in crate::http::git_protocol) fn to_read(
        upstream: &Upstream,
        target: &Target,
        (headers, client): (&HeaderMap, IpAddr),
        body: Option<Arc<Received>>,
    ) -> Result<Self, GitHttpError> {
        let base = if headers.contains_key(header::AUTHORIZATION) {
            upstream.url().to_owned()
        } else {
            upstream.secret_url()
        };
        let mut url = url(&base, target)?;
        let (method, body) = if let Some(body) = body {
            (Method::POST, PassedBody::Received(body))
        } else {
            url.set_query(Some("service=git-upload-pack"));
            (Method::GET, PassedBody::Nothing)
        };
        Ok(Self {
            base: Base::of(upstream, target)?,
            url,
            method,
            headers: headers::to_upstream_to_read(headers),
            body,
            own_authorization: None,
            client,
            redirects: Redirects::Followed,
            cause: Cause::current(),
        })
    }
}

/// Where a request goes: always below the configured upstream.
fn url(base: &str, target: &Target) -> Result<Url, GitHttpError> {
    let suffix = match target.spelling {
        Spelling::Plain => "",
        Spelling::WithGit => ".git",
    };
    let tail = match &target.service {
        Service::InfoRefs => "/info/refs",
        Service::UploadPack => "/git-upload-pack",
        Service::ReceivePack => "/git-receive-pack",
        Service::Other(path) => path,
    };
    Url::parse(&format!("{base}{suffix}{tail}")).map_err(|_| GitHttpError::NotHttp)
}

/// Passes a request on, and the answer back as it comes.
pub(in crate::http::git_protocol) async fn pass_on(
    server: &GitServer,
    passed: Passed,
) -> Result<Response, GitHttpError> {
    let turn = server
        .upstream_turn(&passed.base.host, passed.client)
        .await?;
    let idle = server.config().git_http.idle_timeout;
    let (base, url) = (passed.base.clone(), passed.url.clone());
    let response = send(server, passed).await?;
    let (status, mut headers) = head(&response);
    if is_redirect(status) {
        let to = base.target(&url, &response).and_then(|to| base.here(&to));
        let to = to.and_then(|to| to.parse().ok());
        headers.insert(header::LOCATION, to.ok_or(GitHttpError::Redirected)?);
    }
    let body = server.relay.body(pieces(response, idle), turn);
    Ok(build(status, headers, body))
}

/// Puts an answer together.
pub(in crate::http::git_protocol) fn build(
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Status and allowed headers of upstream's answer.
pub(in crate::http::git_protocol) fn head(response: &reqwest::Response) -> (StatusCode, HeaderMap) {
    (
        response.status(),
        headers::from_upstream(response.headers()),
    )
}

/// Sends a request to upstream, and waits for the head of the answer.
pub(in crate::http::git_protocol) async fn send(
    server: &GitServer,
    passed: Passed,
) -> Result<reqwest::Response, GitHttpError> {
    Counters::count(&server.counters.passed_on);
    // The query may carry a token.
    let (host, path) = (&passed.base.host, passed.url.path());
    debug!(host, path, method = %passed.method, "Passing a request on to {host}");
    // A body that the client is still sending may take as long as the whole.
    let limits = &server.config().git_http;
    let limit = match passed.body {
        PassedBody::Nothing | PassedBody::Received(_) => limits.idle_timeout,
        PassedBody::Stream(_) => limits.answer_timeout,
    };
    let span = traces::pass_on_span(host, &passed.cause);
    let sent = timeout(limit, send_and_follow(&server.client, passed)).instrument(span.clone());
    let sent = sent.await;
    match &sent {
        Ok(Ok(response)) => traces::note_status(&span, response.status().as_u16()),
        Ok(Err(_)) => traces::note_error(&span, "upstream"),
        Err(_) => traces::note_error(&span, "timed_out"),
    }
    sent.unwrap_or(Err(GitHttpError::UpstreamTooSlow { limit }))
}

async fn send_and_follow(
    client: &reqwest::Client,
    passed: Passed,
) -> Result<reqwest::Response, GitHttpError> {
    let Passed {
        base,
        mut url,
        method,
        mut headers,
        mut body,
        own_authorization,
        redirects,
        ..
    } = passed;
    // Redirects lead nowhere but below the same upstream.
    if let Some(own) = own_authorization {
        headers.insert(header::AUTHORIZATION, own);
    }
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client
            .request(method.clone(), url.clone())
            .headers(headers.clone());
        match &mut body {
            PassedBody::Nothing => {}
            PassedBody::Received(received) => request = request.body(body_of(received)?),
            PassedBody::Stream(body) => {
                let stream = std::mem::take(body).into_data_stream();
                request = request.body(reqwest::Body::wrap_stream(stream));
            }
        }
        let response = request.send().await.map_err(failed)?;
        if redirects == Redirects::Translated || !is_redirect(response.status()) {
            return Ok(response);
        }
        url = base
            .target(&url, &response)
            .ok_or(GitHttpError::Redirected)?;
    }
    Err(GitHttpError::Redirected)
}

fn body_of(received: &Received) -> Result<reqwest::Body, GitHttpError> {
    if let Some(whole) = received.whole() {
        return Ok(whole.clone().into());
    }
    let file = tokio::fs::File::from_std(received.rewound()?);
    Ok(reqwest::Body::wrap_stream(ReaderStream::new(file)))
}

/// What upstream sends, as it comes.
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
