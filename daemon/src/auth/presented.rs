//! The token in the headers of a request. The daemon's own tokens are taken out of the headers;
//! other credentials stay for upstream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};

use super::token::PREFIX;

/// The header for a token of the daemon, if `Authorization` is meant for upstream. It is never
/// passed on.
pub(crate) const TOKEN_HEADER: &str = "x-cachewfs-token";

/// A token of the daemon that a request presents. Its `Debug` output doesn't show the secret.
#[derive(PartialEq, Eq)]
pub(crate) struct PresentedToken(String);

impl std::fmt::Debug for PresentedToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PresentedToken")
    }
}

/// The error for a request with more than one credential of the same kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DuplicateCredentials;

impl PresentedToken {
    /// Removes the daemon's token from `headers`, so that it can't be passed on, and returns it.
    pub(crate) fn take(headers: &mut HeaderMap) -> Result<Option<Self>, DuplicateCredentials> {
        // With two values of one header, the daemon and upstream could each take another one.
        let is_single = |name: &str| headers.get_all(name).iter().nth(1).is_none();
        if !is_single(header::AUTHORIZATION.as_str()) || !is_single(TOKEN_HEADER) {
            return Err(DuplicateCredentials);
        }
        let in_authorization = headers.get(header::AUTHORIZATION).and_then(token);
        if in_authorization.is_some() {
            headers.remove(header::AUTHORIZATION);
        }
        let beside = headers.remove(TOKEN_HEADER);
        // A value that is not text becomes "", which is an unknown token: the request is refused,
        // and not treated as anonymous.
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

/// Returns the daemon's token in a value of `Authorization`: a `Bearer` token, or the user or the
/// password of `Basic`. Which of the two depends on how the user configured git.
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
    fn tokens_of_the_daemon_are_removed_and_others_stay() {
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
    fn duplicate_credentials_are_refused() {
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
