//! Tokens of a GitHub App's installations. A token is fetched when it is needed and shared until
//! shortly before it expires.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use lru::LruCache;
use parking_lot::Mutex as SyncMutex;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::jwt::{read_key, sign};
use super::{CredentialError, UpstreamAuthConfig};
use crate::base::{Backoff, chain};
use crate::http_client::http_client;
use crate::traces;

/// How long before its expiry a token is replaced. GitHub's tokens last an hour.
const REFRESH_MARGIN: Duration = Duration::from_mins(15);
/// How long the daemon remembers that the App is not installed for an owner.
const ABSENT_LIFETIME: Duration = Duration::from_mins(5);
/// How long an old token must still last to be used if GitHub gives no newer one.
const MIN_LIFETIME: Duration = Duration::from_mins(1);
/// How long a request to GitHub may take, and how long a caller waits for another caller's request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long GitHub isn't asked after a failure.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};
/// At most this many owners are remembered: clients may guess names, which must not fill the
/// memory.
const MAX_OWNERS: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// At most this many bytes of a response are read.
const MAX_RESPONSE_LEN: usize = 256 << 10;

const FIND: &str = "the App's installation";
const CREATE: &str = "an installation token";

/// A GitHub App, and the tokens of its installations.
#[derive(Debug)]
pub(super) struct GithubApp {
    id: String,
    key: PathBuf,
    installation: Option<u64>,
    api: Url,
    client: reqwest::Client,
    owners: SyncMutex<LruCache<String, Arc<Mutex<OwnerState>>>>,
}

/// The state of one owner. A caller holds its lock while it asks GitHub, so that callers who arrive
/// meanwhile share the token.
#[derive(Debug, Default)]
struct OwnerState {
    installation: Option<u64>,
    token: Option<InstallationToken>,
    /// When GitHub last said that the App is not installed for this owner.
    absent: Option<Instant>,
    failure: Option<RecentFailure>,
}

/// The failures of GitHub since its last success. GitHub isn't asked again before `until`.
#[derive(Debug)]
struct RecentFailure {
    tries: u32,
    until: Instant,
    text: String,
}

impl OwnerState {
    /// Notes a further failure of GitHub.
    fn fail(&mut self, error: &CredentialError) {
        let tries = self.failure.as_ref().map_or(0, |failure| failure.tries) + 1;
        self.failure = Some(RecentFailure {
            tries,
            until: Instant::now() + BACKOFF.doubled(tries),
            text: chain(error),
        });
    }

    /// Returns why GitHub is not asked now, or `None` if it may be asked.
    fn backoff_error(&self) -> Option<CredentialError> {
        let failure = self.failure.as_ref()?;
        let left = failure.until.checked_duration_since(Instant::now())?;
        let last = failure.text.clone();
        Some(CredentialError::Backoff { left, last })
    }

    /// Returns the remembered token if it lasts at least this long.
    fn token_for(&self, least: Duration) -> Option<String> {
        let token = self.token.as_ref().filter(|token| token.lasts(least))?;
        Some(token.token.clone())
    }
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Clone, Deserialize)]
struct InstallationToken {
    token: String,
    expires_at: String,
}

impl std::fmt::Debug for InstallationToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Token(until {})", self.expires_at)
    }
}

impl InstallationToken {
    fn lasts(&self, least: Duration) -> bool {
        let expires = humantime::parse_rfc3339(&self.expires_at).ok();
        expires.is_some_and(|expires| expires > SystemTime::now() + least)
    }
}

impl GithubApp {
    pub(super) fn open(
        id: &str,
        key: &Path,
        config: &UpstreamAuthConfig,
    ) -> Result<Self, CredentialError> {
        read_key(key)?;
        let api = format!("{}/", config.api_url.trim_end_matches('/'));
        let api = Url::parse(&api).map_err(|_| CredentialError::BadResponse { what: FIND })?;
        let client = http_client(|builder| {
            builder
                .user_agent("cachewfsd")
                .redirect(reqwest::redirect::Policy::none())
        });
        Ok(Self {
            id: id.to_owned(),
            key: key.to_owned(),
            installation: config.installation_id,
            api,
            client: client.map_err(CredentialError::Request)?,
            owners: SyncMutex::new(LruCache::new(MAX_OWNERS)),
        })
    }

    /// Returns a token for the repositories of `owner`, or `None` if the App is not installed
    /// there.
    pub(super) async fn token(&self, owner: &str) -> Result<Option<String>, CredentialError> {
        // An installation has one token, whatever the owner of the repository. So a configured
        // installation has one state, under the empty name.
        let name = self.installation.map_or(owner, |_| "");
        let state = {
            let mut owners = self.owners.lock();
            Arc::clone(owners.get_or_insert(name.to_ascii_lowercase(), Arc::default))
        };
        let too_slow = |_| CredentialError::TooSlow { limit: TIMEOUT };
        let mut state = timeout(TIMEOUT, state.lock()).await.map_err(too_slow)?;
        if let Some(token) = state.token_for(REFRESH_MARGIN) {
            return Ok(Some(token));
        }
        if state
            .absent
            .is_some_and(|since| since.elapsed() < ABSENT_LIFETIME)
        {
            return Ok(None);
        }
        let fetched = match state.backoff_error() {
            Some(error) => Err(error),
            None => self.fetch_and_note(owner, &mut state).await,
        };
        // GitHub fails, but the old token is replaced long before it expires and may still be good.
        fetched.or_else(|error| state.token_for(MIN_LIFETIME).map(Some).ok_or(error))
    }

    /// Fetches a token. Notes a failure of GitHub in `state`.
    async fn fetch_and_note(
        &self,
        owner: &str,
        state: &mut OwnerState,
    ) -> Result<Option<String>, CredentialError> {
        let fetched = timeout(TIMEOUT, self.fetch(owner, state)).await;
        let fetched = fetched.unwrap_or(Err(CredentialError::TooSlow { limit: TIMEOUT }));
        match &fetched {
            Ok(_) => state.failure = None,
            // The operator has to mend these errors. Waiting doesn't help, so there is no backoff.
            Err(CredentialError::Key { .. } | CredentialError::Signature) => {}
            Err(error) => state.fail(error),
        }
        fetched
    }

    async fn fetch(
        &self,
        owner: &str,
        state: &mut OwnerState,
    ) -> Result<Option<String>, CredentialError> {
        let jwt = sign(&self.id, &read_key(&self.key)?)?;
        let known = self.installation.or(state.installation);
        let found = match known {
            Some(_) => known,
            None => self.find_installation(&jwt, owner).await?,
        };
        let Some(installation) = found else {
            state.absent = Some(Instant::now());
            return Ok(None);
        };
        let path = [
            "app",
            "installations",
            &installation.to_string(),
            "access_tokens",
        ];
        let created = self.ask((Method::POST, &path), &jwt, CREATE).await;
        // After a failure the installation is looked up again: the App may have been reinstalled,
        // and then has another number.
        state.installation = created.is_ok().then_some(installation);
        let token: InstallationToken = created?.ok_or(CredentialError::Refused {
            what: CREATE,
            status: StatusCode::NOT_FOUND,
        })?;
        if token.token.is_empty() || !token.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CredentialError::BadResponse { what: CREATE });
        }
        let secret = token.token.clone();
        state.token = Some(token);
        Ok(Some(secret))
    }

    async fn find_installation(
        &self,
        jwt: &str,
        owner: &str,
    ) -> Result<Option<u64>, CredentialError> {
        // GitHub answers this request for organisations, too.
        let path = ["users", owner, "installation"];
        let found: Option<Installation> = self.ask((Method::GET, &path), jwt, FIND).await?;
        Ok(found.map(|installation| installation.id))
    }

    /// Sends a request to GitHub. Returns `None` if GitHub answers 404.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        (method, path): (Method, &[&str]),
        jwt: &str,
        what: &'static str,
    ) -> Result<Option<T>, CredentialError> {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let failed = |error: reqwest::Error| CredentialError::Request(error.without_url());
        let request = self
            .client
            .request(method, url)
            .bearer_auth(jwt)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        let host = self.api.host_str().unwrap_or_default();
        let span = traces::upstream_span("GitHub API", host);
        let response = request.send().instrument(span.clone()).await;
        traces::note_answer(&span, &response);
        let mut response = response.map_err(failed)?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK | StatusCode::CREATED => {}
            status => return Err(CredentialError::Refused { what, status }),
        }
        let mut answer = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(failed)? {
            answer.extend_from_slice(&bytes);
            if answer.len() > MAX_RESPONSE_LEN {
                return Err(CredentialError::BadResponse { what });
            }
        }
        // serde's error would quote the response, which may contain a token. So it is dropped.
        let parsed = serde_json::from_slice(&answer).ok();
        parsed
            .map(Some)
            .ok_or(CredentialError::BadResponse { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_error_has_the_last_failure_and_the_time_left() {
        let mut state = OwnerState::default();
        assert!(state.backoff_error().is_none());

        state.fail(&CredentialError::Refused {
            what: FIND,
            status: StatusCode::BAD_GATEWAY,
        });

        let error = state.backoff_error().unwrap();
        assert!(
            matches!(&error, CredentialError::Backoff { left, last }
            if *left <= BACKOFF.first && last.contains("502")),
            "{error:?}"
        );
    }
}
