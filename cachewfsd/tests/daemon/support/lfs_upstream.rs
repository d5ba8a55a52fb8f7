//! The LFS server of an upstream that speaks HTTP: the batch API and the objects.

use std::path::Path;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::support::lfs::object_below;

/// Answers an LFS request. Returns `None` if the repository has no LFS objects in
/// `<root>/<path>.git/lfs/objects`, or if the request is malformed.
pub(crate) fn answer(root: &Path, url: &str, target: &str, body: &[u8]) -> Option<Response> {
    let (repository, asked) = target.split_once("/info/lfs/")?;
    let directory = root.join(repository.trim_start_matches('/'));
    if !directory.join("lfs/objects").is_dir() {
        return None;
    }
    if let Some(oid) = asked.strip_prefix("storage/") {
        return Some(match std::fs::read(object_below(&directory, oid)) {
            Ok(bytes) => bytes.into_response(),
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        });
    }
    // A test may name another download URL in this file, as a hostile LFS server would.
    let elsewhere = std::fs::read_to_string(directory.join("lfs/elsewhere")).ok();
    let batch: Value = serde_json::from_slice(body).ok()?;
    let objects = batch["objects"].as_array()?.iter().map(|object| {
        let oid = object["oid"].as_str().unwrap();
        let href = format!("{url}{repository}/info/lfs/storage/{oid}");
        let href = elsewhere.clone().unwrap_or(href);
        json!({"oid": oid, "size": object["size"], "actions": {"download": {"href": href}}})
    });
    let objects: Vec<_> = objects.collect();
    let answer = Json(json!({"transfer": "basic", "objects": objects}));
    let content_type = [("content-type", "application/vnd.git-lfs+json")];
    Some((content_type, answer).into_response())
}
