//! From a request of a git client to its answer.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::Response;
use futures_util::StreamExt as _;

use super::body::receive;
use super::pass_on::{UpstreamRequest, pass_on};
use super::server::GitServer;
use super::target::{GitTarget, Service};
use super::upload_pack::UploadPackRequest;
use super::{GitHttpError, headers};
use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::http::routes::not_allowed;
use crate::repository::Repository;

const UPLOAD_PACK_REQUEST: &str = "application/x-git-upload-pack-request";

/// Answers a request of a git client.
pub(in crate::http) async fn answer(
    server: Arc<GitServer>,
    target: GitTarget,
    request: Request,
) -> Result<Response, ApiError> {
    let upstream = server.registry.check(&target.repo)?;
    server.registry.note_use(&target.repo);
    let (parts, body) = request.into_parts();
    let client = client(&parts);
    let protocol = headers::git_protocol(&parts.headers)?;
    let admitted = match target.service {
        // A body that is received first takes no turn while it comes.
        Service::UploadPack => None,
        Service::InfoRefs | Service::ReceivePack | Service::Other(_) => Some(server.admit(client)?),
    };
    let response = match target.service.clone() {
        Service::InfoRefs => {
            if parts.method != Method::GET {
                return Ok(not_allowed("GET"));
            }
            match service(parts.uri.query())? {
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
            let push = PushGuard(server.registry.find(&target.repo));
            let response = pass_on(&server, upstream_request).await?;
            response.map(|body| hold(body, push))
        }
        Service::Other(_) => {
            let upstream_request = UpstreamRequest::as_it_comes(&upstream, &target, &parts, body)?;
            pass_on(&server, upstream_request).await?
        }
    };
    // The permit goes with the body: the request lasts until that is sent.
    Ok(response.map(|body| hold(body, admitted)))
}

/// Receives what a client wants to read, and answers.
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

/// Returns the address that a request comes from.
pub(in crate::http) fn client(parts: &Parts) -> IpAddr {
    let caller: Option<&Caller> = parts.extensions.get();
    // No request gets here that nobody has authorized.
    caller.map_or(Ipv4Addr::UNSPECIFIED.into(), |caller| caller.address)
}

/// Says, when a push is over, that whatever was known of upstream is out of date.
struct PushGuard(Option<Arc<Repository>>);

impl Drop for PushGuard {
    fn drop(&mut self) {
        if let Some(repository) = &self.0 {
            repository.upstream_moved();
        }
    }
}

fn hold(body: Body, held: impl Send + Sync + 'static) -> Body {
    let stream = body.into_data_stream();
    Body::from_stream(stream.map(move |piece| {
        let _ = &held;
        piece
    }))
}

enum AdvertisedService {
    UploadPack,
    ReceivePack,
}

/// What the query of `info/refs` asks for: exactly one service, and nothing else.
fn service(query: Option<&str>) -> Result<AdvertisedService, GitHttpError> {
    match query {
        Some("service=git-upload-pack") => Ok(AdvertisedService::UploadPack),
        Some("service=git-receive-pack") => Ok(AdvertisedService::ReceivePack),
        _ => Err(GitHttpError::BadService),
    }
}
