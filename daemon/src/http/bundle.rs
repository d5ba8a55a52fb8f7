//! `GET P/snapshot.bundle?base=<commit>`: a bundle that updates a clone at that commit.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::{ObjectId, SnapshotId};
use tokio_util::io::ReaderStream;

use super::app::App;
use super::error::ApiError;
use super::request::ArchiveRequest;
use crate::repository::{Bundle, MirrorState};

/// How many bytes of a bundle are read at a time.
const BLOCK_LEN: usize = 256 << 10;

/// Answers with the bundle from the commit that the query names. HEAD gets the same headers as GET,
/// but never starts a mirror.
pub(super) async fn bundle(
    app: Arc<App>,
    request: ArchiveRequest,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let base = base(query)?;
    let repo = request.repo;
    let repository = if request.method == Method::GET {
        app.registry.open(&repo)?
    } else {
        let known = app.registry.find(&repo);
        known.ok_or_else(|| ApiError::UnknownRepo { repo: repo.clone() })?
    };
    let status = repository.status();
    if status.state != MirrorState::Ready {
        let state = status.state.as_str();
        if request.method == Method::GET {
            repository.revalidate();
        }
        return Err(match status.failure {
            Some(failure) => failure.error.into(),
            None => ApiError::NotReady { repo, state },
        });
    }
    // A clone that was restored from the snapshot of that commit has all objects that the
    // snapshot's refs reached, so the bundle can leave them out.
    let manifest = app.store.manifest(&repo, SnapshotId::first(base)).await?;
    let tips = manifest.map(|(manifest, _)| manifest.tips);
    let known: HashSet<_> = tips.into_iter().flatten().collect();
    let bundle = app.bundles.get(&repository, base, known).await;
    let bundle = match bundle.map_err(ApiError::of_known_repository)? {
        Bundle::File(bundle) => bundle,
        Bundle::UpToDate => {
            let headers = [(header::CACHE_CONTROL, "no-cache")];
            return Ok((StatusCode::NO_CONTENT, headers).into_response());
        }
        Bundle::UnknownBase => return Err(ApiError::UnknownBase { repo }),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/x-git-bundle".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_LENGTH, bundle.len.to_string()),
    ];
    if request.method == Method::HEAD {
        return Ok((headers, Body::empty()).into_response());
    }
    let file = tokio::fs::File::from_std(bundle.file);
    let body = Body::from_stream(ReaderStream::with_capacity(file, BLOCK_LEN));
    Ok((headers, body).into_response())
}

/// Returns the one `base` of the query. Other parameters are ignored.
fn base(query: Option<&str>) -> Result<ObjectId, ApiError> {
    let mut bases = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.strip_prefix("base="));
    match (bases.next(), bases.next()) {
        (Some(base), None) => ObjectId::parse(base).map_err(|_| ApiError::BadBase),
        _ => Err(ApiError::BadBase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_one_full_lower_case_id() {
        let commit = "1a".repeat(20);
        let parse = |query: &str| base(Some(query)).ok().map(|base| base.to_string());

        assert_eq!(parse(&format!("base={commit}")), Some(commit.clone()));
        assert_eq!(parse(&format!("x=1&base={commit}")), Some(commit.clone()));
        for bad in [
            String::new(),
            "base=".to_owned(),
            "base=HEAD".to_owned(),
            format!("base={}", commit.to_uppercase()),
            format!("base={commit}^"),
            format!("base=--{commit}"),
            format!("base={commit}&base={commit}"),
            commit.replacen('1', "base=%31", 1),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
        assert!(base(None).is_err());
    }
}
