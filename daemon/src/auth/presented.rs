//! What a request shows of credentials: tokens of ours are taken out, others are left for upstream.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::token::PREFIX;

/// Carries a token of ours beside an `Authorization` that is for upstream. Never passed on.
pub(crate) const TOKEN_HEADER: &str = "x-cachewfs-token";

/// A token of ours that a request shows.
#[derive(PartialEq, Eq)]
pub(crate) struct PresentedToken(String);

impl std::fmt::Debug for PresentedToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PresentedToken")
    }
}

/// The request shows credentials more than once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DuplicateCredentials;

impl PresentedToken {
    /// Takes the token out of `headers`, so that nobody can pass it on.
    pub(crate) fn take(headers: &mut HeaderMap) -> Result<Option<Self>, DuplicateCredentials> {
        let is_single = |name: &str| headers.get_all(name).iter().nth(1).is_none();
        if !is_single(header::AUTHORIZATION.as_str()) || !is_single(TOKEN_HEADER) {
            return Err(DuplicateCredentials);
        }
        let in_authorization = headers.get(header::AUTHORIZATION).and_then(token);
        if in_authorization.is_some() {
            headers.remove(header::AUTHORIZATION);
        }
        let beside = headers.remove(TOKEN_HEADER);
        // What can't be a token is an unknown one.
        let beside = beside.map(|value| value.to_str().unwrap_or_default().to_owned());
        match (in_authorization, beside) {
            (Some(_), Some(_)) => Err(DuplicateCredentials),
            (token, beside) => Ok(token.or(beside).map(Self)),
        }
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

/// The token of ours in a value of `Authorization`, which as a user or password of `Basic` is all the
/// same: git sends what it was given.
fn token(value: &HeaderValue) -> Option<String> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return rest.starts_with(PREFIX).then(|| rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    [password, user]
        .into_iter()
        .find(|text| text.starts_with(PREFIX))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn tokens_of_ours_are_taken_out_and_others_stay() {
        let ours = || Some(PresentedToken("cwfs_x".to_owned()));
        for value in ["Bearer cwfs_x".to_owned(), "bearer  cwfs_x".to_owned()]
            .into_iter()
            .chain([basic("git:cwfs_x"), basic("cwfs_x:")])
        {
            let mut sent = headers(&[("authorization", value)]);
            assert_eq!(PresentedToken::take(&mut sent), Ok(ours()));
            assert!(sent.is_empty());
        }
        for value in ["Bearer ghp_x".to_owned(), basic("me:ghp_x"), "x".to_owned()] {
            let mut sent = headers(&[("authorization", value), (TOKEN_HEADER, "cwfs_x".into())]);
            assert_eq!(PresentedToken::take(&mut sent), Ok(ours()));
            assert!(sent.len() == 1 && sent.contains_key("authorization"));
        }
    }

    #[test]
    fn credentials_are_shown_once() {
        let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
        for pairs in [
            [bearer("ghp_x"), bearer("cwfs_x")],
            [bearer("cwfs_x"), (TOKEN_HEADER, "cwfs_y".to_owned())],
        ] {
            assert_eq!(
                PresentedToken::take(&mut headers(&pairs)),
                Err(DuplicateCredentials)
            );
        }
    }
}
