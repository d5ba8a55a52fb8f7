//! The batch API of LFS, which tells the URLs of objects
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use serde::Deserialize;
use tracing::{Instrument as _, debug};

use super::{LfsFetchError, LfsObject};
use crate::mirror::{Login, Upstream};
use crate::traces;

const CONTENT_TYPE: &str = "application/vnd.git-lfs+json";
/// How long upstream may take to answer.
const TIMEOUT: Duration = Duration::from_mins(2);
/// At most this many bytes of a response are read. A signed URL with headers takes about 4 KiB an
/// object.
const MAX_RESPONSE_LEN: usize = 8 << 20;

/// The response of upstream's LFS server about some objects.
#[derive(Debug)]
pub(super) struct Batch {
    actions: HashMap<String, Action>,
    /// The address of the server that answered.
    pub(super) server: Option<IpAddr>,
}

/// How to download an object.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Action {
    pub(super) href: String,
    #[serde(default)]
    header: HashMap<String, String>,
}

impl Action {
    /// Returns the headers that the server asks the client to send.
    pub(super) fn headers(&self) -> HeaderMap {
        let parse = |(name, value): (&String, &String)| {
            let name: HeaderName = name.parse().ok()?;
            let mut value: HeaderValue = value.parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        self.header.iter().filter_map(parse).collect()
    }
}

#[derive(Deserialize)]
struct BatchResponse {
    transfer: Option<String>,
    objects: Vec<BatchObject>,
}

#[derive(Deserialize)]
struct BatchObject {
    oid: String,
    /// Absent if upstream doesn't have the object.
    #[serde(default)]
    actions: Actions,
}

#[derive(Default, Deserialize)]
struct Actions {
    download: Option<Action>,
}

impl Batch {
    /// Sends a batch request to the LFS server of the repository at `url`, which ends with `.git`.
    /// Fails if the server redirects.
    pub(super) async fn ask(
        upstream: &Upstream,
        (url, login): (&Url, Option<&Login>),
        wanted: &[LfsObject],
    ) -> Result<Self, LfsFetchError> {
        let objects = wanted.iter();
        let objects: Vec<_> = objects
            .map(|object| serde_json::json!({"oid": object.oid, "size": object.size}))
            .collect();
        let question = serde_json::json!({
            "operation": "download",
            "transfers": ["basic"],
            "objects": objects,
            "hash_algo": "sha256",
        });
        let mut request = upstream
            .client()
            .post(format!("{url}/info/lfs/objects/batch"))
            .header("accept", CONTENT_TYPE)
            .header("content-type", CONTENT_TYPE)
            .header("user-agent", "git-lfs/cachewfsd")
            .timeout(TIMEOUT)
            .body(question.to_string());
        if let Some(login) = login {
            request = request.basic_auth(&login.user, Some(&login.secret));
        }
        let span = traces::upstream_span("list LFS objects", upstream.authority());
        let answer = request.send().instrument(span.clone()).await;
        traces::note_answer(&span, &answer);
        let failed = |error: reqwest::Error| {
            let (repo, error) = (upstream.repo(), error.without_url());
            debug!(%repo, %error, "Can't reach the LFS server of {repo}");
            LfsFetchError::Batch
        };
        let mut answer = answer.map_err(failed)?;
        if !answer.status().is_success() {
            let (repo, status) = (upstream.repo(), answer.status());
            debug!(%repo, %status, "The LFS server of {repo} refused a batch request");
            return Err(LfsFetchError::Batch);
        }
        // The guard needs the address: the server may name addresses in its own kind of network.
        let server = answer.remote_addr().map(|address| address.ip());
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&bytes);
            if text.len() > MAX_RESPONSE_LEN {
                return Err(LfsFetchError::Batch);
            }
        }
        let actions = parse(&text).ok_or(LfsFetchError::Batch)?;
        Ok(Self { actions, server })
    }

    /// Returns how to download `object`, or `None` if upstream doesn't have it.
    pub(super) fn action(&self, object: &LfsObject) -> Option<&Action> {
        self.actions.get(&object.oid)
    }
}

fn parse(answer: &[u8]) -> Option<HashMap<String, Action>> {
    let answer: BatchResponse = serde_json::from_slice(answer).ok()?;
    // Other transfers (such as tus) need a client that speaks their protocol.
    let is_basic = answer.transfer.is_none_or(|transfer| transfer == "basic");
    let objects = answer.objects.into_iter();
    let actions = objects.filter_map(|object| Some((object.oid, object.actions.download?)));
    is_basic.then(|| actions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_download_urls_and_leaves_out_missing_objects() {
        let answer = br#"{"objects": [
            {"oid": "a", "size": 1, "actions": {
                "download": {"href": "https://h/a", "header": {"X-Key": "v"}}}},
            {"oid": "b", "size": 1, "error": {"code": 404, "message": "no"}}]}"#;

        let actions = parse(answer).unwrap();

        assert_eq!(actions.len(), 1);
        assert_eq!(actions["a"].href, "https://h/a");
        assert_eq!(actions["a"].headers()["x-key"], "v");
        for bad in [
            &b"{}"[..],
            b"<html>",
            br#"{"transfer": "tus", "objects": []}"#,
        ] {
            assert!(parse(bad).is_none());
        }
    }
}
