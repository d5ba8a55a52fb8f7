//! `POST P/ensure-refs`: makes sure that the mirror has given refs and commits, before a client
//! fetches them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest};
use cachewfs_format::{ObjectId, RepoName};
use futures_util::TryStreamExt as _;

use super::app::App;
use super::body_budget::{BodyBudget, BodyReservation};
use super::error::{ApiError, GitHttpError};
use crate::mirror::RefName;
use crate::repository::WantedContents;

/// The longest request body, in bytes: enough for [`MAX_NAMES`] with long names.
const MAX_BODY_LEN: usize = 1 << 20;
/// At most this many refs, and this many commits, in one request.
const MAX_NAMES: usize = 1000;
/// The memory for all such bodies that are received at the same time, in bytes. The first
/// [`SHORT_LEN`] bytes of each don't count.
const MAX_BODIES_LEN: u64 = 64 << 20;
const SHORT_LEN: u64 = 8 << 10;
/// How long a client may take to send its request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the budget for the bodies of such requests.
pub(super) fn body_budget() -> BodyBudget {
    BodyBudget::new(MAX_BODIES_LEN, SHORT_LEN)
}

/// Answers with the refs and commits that the mirror has. If one is missing, the mirror is updated
/// first.
pub(super) async fn ensure_refs(
    app: Arc<App>,
    repo: RepoName,
    (body, client): (Body, IpAddr),
) -> Result<Response, ApiError> {
    let request = read(body, app.body_budget.reserve(client)).await?;
    // A malformed name or id can't exist, so it is reported as missing without asking upstream.
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
    let wanted = WantedContents {
        refs: names
            .iter()
            .map(|(&name, parsed)| (parsed.clone(), expected(name)))
            .collect(),
        objects: commits.iter().flatten().copied().collect(),
    };
    let repository = app.registry.open(&repo)?;
    let had_to_wait = app.reader.wait_for_mirror(&repository).await?;
    let ensured = app.reader.ensure(&repository, wanted).await;
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

async fn read(body: Body, reservation: BodyReservation) -> Result<EnsureRefsRequest, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, gather(body, reservation)).await;
    let bytes = read.map_err(|_| ApiError::BodyTooSlow)??;
    let request: EnsureRefsRequest = serde_json::from_slice(&bytes).map_err(ApiError::BadJson)?;
    if request.refs.is_empty() && request.commits.is_empty() {
        return Err(ApiError::NothingToEnsure);
    }
    if request.refs.len().max(request.commits.len()) > MAX_NAMES {
        return Err(ApiError::TooManyNames { max: MAX_NAMES });
    }
    Ok(request)
}

/// Collects a body in memory.
async fn gather(body: Body, mut reservation: BodyReservation) -> Result<Vec<u8>, ApiError> {
    let (mut stream, mut bytes) = (body.into_data_stream(), Vec::new());
    let too_large = || ApiError::BodyTooLarge { max: MAX_BODY_LEN };
    while let Some(piece) = stream.try_next().await.map_err(|_| too_large())? {
        let len = bytes.len() + piece.len();
        if len > MAX_BODY_LEN {
            return Err(too_large());
        }
        if !reservation.grow_to(len as u64) {
            return Err(GitHttpError::Busy.into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
