//! Parts of requests that several handlers read.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Version};
use cachewfs_format::RepoName;

use crate::auth::Caller;

/// A request for an archive or a bundle.
#[derive(Debug)]
pub(super) struct ArchiveRequest {
    pub(super) repo: RepoName,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

/// Returns the address of the client that sent the request.
pub(super) fn client(parts: &Parts) -> IpAddr {
    let caller: Option<&Caller> = parts.extensions.get();
    // `authorize` has put the caller into every request that gets here.
    caller.map_or(Ipv4Addr::UNSPECIFIED.into(), |caller| caller.address)
}
