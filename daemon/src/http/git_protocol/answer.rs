//! Routes a request of a git client to the mirror or to upstream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::Response;
use futures_util::StreamExt as _;

use super::body::receive;
use super::headers;
use super::pass_on::{UpstreamRequest, pass_on};
use super::server::GitServer;
use super::upload_pack::UploadPackRequest;
use crate::http::answers::not_allowed;
use crate::http::error::{ApiError, GitHttpError};
use crate::http::request::client;
use crate::http::route::{AdvertisedService, GitTarget, Service};
use crate::repository::Repository;

const UPLOAD_PACK_REQUEST: &str = "application/x-git-upload-pack-request";

/// Answers a request of a git client.
///
/// Reads (`git-upload-pack`) are answered from the mirror if possible; everything else is passed on
/// to upstream.
pub(in crate::http) async fn answer(
    server: Arc<GitServer>,
    target: GitTarget,
    request: Request,
) -> Result<Response, ApiError> {
    let upstream = server.context.check(&target.repo)?;
    server.registry.note_use(&target.repo);
    let (parts, body) = request.into_parts();
    let client = client(&parts);
    let protocol = headers::git_protocol(&parts.headers)?;
    let admitted = match target.service {
        // A request with a body takes its permit only once the body has arrived: a slow sender must
        // not use up the permits.
        Service::UploadPack => None,
        Service::InfoRefs(_) | Service::ReceivePack | Service::Other(_) => {
            Some(server.admit(client)?)
        }
    };
    let response = match target.service.clone() {
        Service::InfoRefs(advertised) => {
            if parts.method != Method::GET {
                return Ok(not_allowed("GET"));
            }
            match advertised.ok_or(GitHttpError::BadService)? {
                AdvertisedService::UploadPack => {
                    let reader = UploadPackRequest::open(server, target, &parts, protocol)?;
                    reader.info_refs().await?
                }
                AdvertisedService::ReceivePack => {
                    let upstream_request =
                        UpstreamRequest::as_it_comes(&upstream, &target, &parts, Body::empty())?;
                    pass_on(&server, upstream_request).await?
                }
            }
        }
        Service::UploadPack | Service::ReceivePack if parts.method != Method::POST => {
            return Ok(not_allowed("POST"));
        }
        Service::UploadPack => read(server, target, (parts, body), protocol).await?,
        Service::ReceivePack => {
            let upstream_request = UpstreamRequest::as_it_comes(&upstream, &target, &parts, body)?;
            // Created before the request is sent: if the client goes away meanwhile, upstream may
            // have taken the push anyway.
            let push = PushGuard(server.registry.find(&target.repo));
            let response = pass_on(&server, upstream_request).await?;
            response.map(|body| hold(body, push))
        }
        Service::Other(_) => {
            let upstream_request = UpstreamRequest::as_it_comes(&upstream, &target, &parts, body)?;
            pass_on(&server, upstream_request).await?
        }
    };
    // The permit moves into the body: the request is in progress until the body is sent.
    Ok(response.map(|body| hold(body, admitted)))
}

/// Receives the body of a `git-upload-pack` request, and answers it.
async fn read(
    server: Arc<GitServer>,
    target: GitTarget,
    (parts, body): (Parts, Body),
    protocol: Option<String>,
) -> Result<Response, ApiError> {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != UPLOAD_PACK_REQUEST) {
        let expected = UPLOAD_PACK_REQUEST;
        return Err(GitHttpError::BadContentType { expected }.into());
    }
    let client = client(&parts);
    let storage = (&*server.tmp, server.body_budget.reserve(client));
    let body = receive(body, &parts.headers, server.body_limits(), storage).await?;
    let admitted = server.admit(client)?;
    let reader = UploadPackRequest::open(server, target, &parts, protocol)?;
    let response = reader.rpc(body).await?;
    Ok(response.map(|body| hold(body, admitted)))
}

/// Marks the remembered state of upstream as stale when it is dropped, at the end of a push.
struct PushGuard(Option<Arc<Repository>>);

impl Drop for PushGuard {
    fn drop(&mut self) {
        if let Some(repository) = &self.0 {
            repository.upstream_changed();
        }
    }
}

/// Returns `body` with `held` moved into it, so that `held` lives until the body is sent or
/// dropped.
fn hold(body: Body, held: impl Send + Sync + 'static) -> Body {
    let stream = body.into_data_stream();
    Body::from_stream(stream.map(move |piece| {
        let _ = &held;
        piece
    }))
}
