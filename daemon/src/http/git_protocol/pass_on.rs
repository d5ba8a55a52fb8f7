//! Passing a request on to the configured upstream, and its answer back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::Url;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::body::Received;
use super::server::{Counters, GitServer};
use super::target::{Service, Spelling, Target};
use super::{GitHttpError, headers};
use crate::mirror::Upstream;

/// So many redirects of upstream's within itself are followed.
const MAX_REDIRECTS: usize = 3;

/// A request as it goes on to upstream.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) host: String,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: PassedBody,
}

/// The body of such a request.
#[derive(Debug)]
pub(super) enum PassedBody {
    Nothing,
    /// As it comes from the client.
    Stream(Body),
    Received(Arc<Received>),
}

impl Passed {
    /// A request that is none of ours: everything comes from the client, what upstream lets it do too.
    pub(super) fn as_it_comes(
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
            host: target.repo.host().to_owned(),
            url,
            method: parts.method.clone(),
            headers,
            body,
        })
    }

    /// A request to read the repository. The daemon's own credentials are good for that, as they are
    /// for the mirror; the client's go before.
    pub(super) fn to_read(
        upstream: &Upstream,
        target: &Target,
        headers: &HeaderMap,
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
            host: target.repo.host().to_owned(),
            url,
            method,
            headers: headers::to_upstream(headers),
            body,
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
    let url = Url::parse(&format!("{base}{suffix}{tail}")).map_err(|_| GitHttpError::NotHttp)?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(GitHttpError::NotHttp)
    }
}

/// Passes a request on, and the answer back as it comes.
pub(super) async fn pass_on(server: &GitServer, passed: Passed) -> Result<Response, GitHttpError> {
    let turn = server.upstream_turn(&passed.host).await?;
    let idle = server.config.git_http.idle_timeout;
    let response = send(server, passed).await?;
    let (status, headers) = head(&response);
    let body = server.relay.body(pieces(response, idle), turn);
    Ok(build(status, headers, body))
}

/// Puts an answer together.
pub(super) fn build(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Status and allowed headers of upstream's answer.
pub(super) fn head(response: &reqwest::Response) -> (StatusCode, HeaderMap) {
    (
        response.status(),
        headers::from_upstream(response.headers()),
    )
}

/// Sends a request to upstream, and waits for the head of the answer.
pub(super) async fn send(
    server: &GitServer,
    passed: Passed,
) -> Result<reqwest::Response, GitHttpError> {
    Counters::count(&server.counters.passed_on);
    let limits = &server.config.git_http;
    let Passed {
        mut url,
        method,
        headers,
        body,
        ..
    } = passed;
    // A body that the client is still sending may take as long as the whole.
    let (body, limit) = match body {
        PassedBody::Nothing => (None, limits.idle_timeout),
        PassedBody::Stream(body) => {
            let stream = body.into_data_stream();
            (
                Some(reqwest::Body::wrap_stream(stream)),
                limits.answer_timeout,
            )
        }
        PassedBody::Received(body) => (Some(body_of(&body)?), limits.idle_timeout),
    };
    let client = &server.upstream.client;
    let attempt = async {
        let mut request = client
            .request(method.clone(), url.clone())
            .headers(headers.clone());
        if let Some(body) = body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(failed)?;
        for _ in 0..MAX_REDIRECTS {
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = target_within(&url, &response).filter(|_| method == Method::GET);
            url = next.ok_or(GitHttpError::Redirected)?;
            let request = client.get(url.clone()).headers(headers.clone());
            response = request.send().await.map_err(failed)?;
        }
        match response.status() {
            status if is_redirect(status) => Err(GitHttpError::Redirected),
            _ => Ok(response),
        }
    };
    timeout(limit, attempt)
        .await
        .unwrap_or(Err(GitHttpError::UpstreamTooSlow { limit }))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if that is at the same server, which alone may see the headers.
fn target_within(from: &Url, response: &reqwest::Response) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let mut to = from.join(location).ok()?;
    // As the request that is repeated.
    to.set_username(from.username()).ok()?;
    to.set_password(from.password()).ok()?;
    (to.origin() == from.origin()).then_some(to)
}

fn body_of(received: &Received) -> Result<reqwest::Body, GitHttpError> {
    if let Some(whole) = received.whole() {
        return Ok(whole.clone().into());
    }
    let file = tokio::fs::File::from_std(received.rewound()?);
    Ok(reqwest::Body::wrap_stream(ReaderStream::new(file)))
}

/// What upstream sends, as it comes.
pub(super) fn pieces(
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
