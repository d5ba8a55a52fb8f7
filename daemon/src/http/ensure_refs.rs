//! `POST P/ensure-refs`: has the mirror hold refs and commits before a client fetches them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest};
use cachewfs_format::{ObjectId, RepoName};

use super::error::ApiError;
use super::routes::App;
use crate::mirror::RefName;
use crate::repository::Wanted;

/// Length of the longest request, in bytes: room for [`MAX_NAMES`] with long names.
const MAX_BODY_LEN: usize = 1 << 20;
/// How many refs, and how many commits, one request may name.
const MAX_NAMES: usize = 1000;
/// How long a client may take to send its request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers with what the mirror has, asking upstream first if something isn't there.
pub(super) async fn ensure_refs(
    app: Arc<App>,
    repo: RepoName,
    body: Body,
) -> Result<Response, ApiError> {
    let request = read(body).await?;
    // What can't be a ref or a commit is not there, whoever is asked.
    let names: HashMap<&String, RefName> = request
        .refs
        .keys()
        .filter_map(|name| Some((name, RefName::parse(name)?)))
        .collect();
    let commits: Vec<Option<ObjectId>> = request
        .commits
        .iter()
        .map(|commit| ObjectId::parse(commit).ok())
        .collect();
    let expected = |name: &String| ObjectId::parse(request.refs.get(name)?).ok();
    let wanted = Wanted {
        refs: names
            .iter()
            .map(|(&name, parsed)| (parsed.clone(), expected(name)))
            .collect(),
        objects: commits.iter().flatten().copied().collect(),
    };
    let repository = app.registry.open(&repo)?;
    let had_to_wait = app.registry.wait_for_mirror(&repository).await?;
    let ensured = app.registry.ensure(&repository, wanted).await;
    let (contents, was_checked) = ensured.map_err(ApiError::of_known_repository)?;
    let resolve = |name: &String| {
        let target = contents.refs.get(names.get(name)?)?;
        Some(target.to_string())
    };
    let refs: BTreeMap<String, String> = request
        .refs
        .keys()
        .map(|name| (name.clone(), resolve(name).unwrap_or_default()))
        .collect();
    let is_missing =
        |commit: &Option<ObjectId>| commit.is_none_or(|oid| contents.missing.contains(&oid));
    let missing_commits = request
        .commits
        .iter()
        .zip(&commits)
        .filter(|(_, commit)| is_missing(commit))
        .map(|(text, _)| text.clone())
        .collect();
    let answer = EnsureRefsAnswer {
        refs,
        missing_commits,
        fetched: had_to_wait || was_checked,
    };
    Ok(Json(answer).into_response())
}

async fn read(body: Body) -> Result<EnsureRefsRequest, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_LEN)).await;
    let bytes = read
        .map_err(|_| ApiError::BodyTimedOut)?
        .map_err(|_| ApiError::BodyTooLarge { max: MAX_BODY_LEN })?;
    let request: EnsureRefsRequest = serde_json::from_slice(&bytes).map_err(ApiError::BadJson)?;
    if request.refs.is_empty() && request.commits.is_empty() {
        return Err(ApiError::NothingToEnsure);
    }
    if request.refs.len().max(request.commits.len()) > MAX_NAMES {
        return Err(ApiError::TooManyNames { max: MAX_NAMES });
    }
    Ok(request)
}
