//! Access control: identifies callers by their tokens and decides by the policy what they may do.
//! The decisions are cached.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use cachewfs_format::RepoName;
use http::Method;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use super::AuthConfig;
use super::policy::{
    Action, Decision, DefaultPolicy, Policy, PolicyError, PolicyInput, ReadPolicy,
};
use super::presented::PresentedToken;
use super::token::{NewToken, TokenHash};
use super::tokens::{Subject, Tokens, TokensError};
use crate::base::Reloaded;

/// At most this many decisions are cached, of some 300 bytes each. A policy sees no clock and
/// nothing but its input, so a decision holds until the policy changes.
const CACHED_DECISIONS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// The reason why the `[auth]` section can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The tokens file can't be used.
    #[error("can't use the tokens file {path}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: TokensError,
    },
    /// The policy file can't be used.
    #[error("can't use the policy {path}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: PolicyError,
    },
}

/// Decides about each request.
#[derive(Debug)]
pub(crate) struct Access {
    /// If present, requests with any other token or none are refused, whatever the policy says.
    exclusive_token: Option<TokenHash>,
    tokens: Option<Reloaded<Tokens>>,
    policy: PolicySource,
    decisions: Mutex<Decisions>,
}

type AnyPolicy = Box<dyn Policy>;

#[derive(Debug)]
enum PolicySource {
    Default(Arc<AnyPolicy>),
    File(Reloaded<AnyPolicy>),
}

/// The cached decisions of one policy.
#[derive(Debug)]
struct Decisions {
    policy: Arc<AnyPolicy>,
    cached: LruCache<PolicyInput, Decision>,
}

/// The caller of one request. It stays the same for all decisions that the request needs.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) subject: Arc<Subject>,
    pub(crate) method: Method,
    pub(crate) address: IpAddr,
    pub(crate) is_loopback: bool,
}

impl Caller {
    pub(crate) fn is_anonymous(&self) -> bool {
        self.subject.name.is_empty()
    }
}

impl Access {
    /// Opens the tokens file and the policy that `config` names, which `read_policy` reads. With
    /// `exclusive_token`, only requests with that token are answered.
    pub(crate) fn open(
        config: &AuthConfig,
        read_policy: Option<ReadPolicy>,
        exclusive_token: Option<&NewToken>,
    ) -> Result<Self, AuthError> {
        let tokens = config.tokens_file.clone().map(|path| {
            let file = path.clone();
            Reloaded::open(vec![path.clone()], move || Tokens::read(&file))
                .map_err(|source| AuthError::Tokens { path, source })
        });
        let unusable = |path| |source| AuthError::Policy { path, source };
        let policy = if let Some(path) = config.policy.clone() {
            let file = path.clone();
            let read = move || read_policy.ok_or(PolicyError::Unsupported)?(&file);
            let policy = Reloaded::open(vec![path.clone()], read);
            PolicySource::File(policy.map_err(unusable(path))?)
        } else {
            PolicySource::Default(Arc::new(Box::new(DefaultPolicy)))
        };
        let decisions = Mutex::new(Decisions {
            policy: policy.current(),
            cached: LruCache::new(CACHED_DECISIONS),
        });
        Ok(Self {
            exclusive_token: exclusive_token.map(NewToken::hash),
            tokens: tokens.transpose()?,
            policy,
            decisions,
        })
    }

    /// Returns whether a token could change an answer, because some tokens are configured.
    pub(crate) fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Returns whether requests with `presented` are answered at all. Only a daemon with an
    /// `exclusive_token` refuses any.
    pub(crate) fn admits(&self, presented: Option<&PresentedToken>) -> bool {
        self.exclusive_token.is_none() || self.is_exclusive_token(presented)
    }

    fn is_exclusive_token(&self, presented: Option<&PresentedToken>) -> bool {
        let shown = presented.and_then(|presented| TokenHash::of(presented.secret()));
        match (&self.exclusive_token, shown) {
            (Some(only), Some(shown)) => only.is(&shown),
            (None, _) | (_, None) => false,
        }
    }

    /// Returns the subject of the token: the anonymous one without a token, or `None` if the token
    /// is unknown.
    pub(crate) fn identify(&self, presented: Option<&PresentedToken>) -> Option<Arc<Subject>> {
        match presented {
            None => Some(Arc::default()),
            // The exclusive token only opens the daemon. Its requests are anonymous for the policy.
            Some(_) if self.is_exclusive_token(presented) => Some(Arc::default()),
            Some(presented) => self.tokens.as_ref()?.current().find(presented.secret()),
        }
    }

    /// Decides whether `caller` may do `action` to `repo`, if the action concerns a repository.
    pub(crate) fn decide(
        &self,
        caller: &Caller,
        action: Action,
        repo: Option<&RepoName>,
    ) -> Result<Decision, PolicyError> {
        let input = PolicyInput {
            subject: caller.subject.name.clone(),
            groups: caller.subject.groups.clone(),
            action,
            host: repo.map_or("", |repo| repo.host()).to_owned(),
            repo: repo.map_or("", |repo| repo.as_str()).to_owned(),
            method: caller.method.to_string(),
            client_ip: caller.address.to_string(),
            is_loopback: caller.is_loopback,
        };
        let policy = self.policy.current();
        if let Some(decision) = self.decisions(&policy).cached.get(&input) {
            return Ok(*decision);
        }
        // The policy runs without the lock, so that a slow evaluation doesn't delay other requests.
        // Two requests may evaluate the same input; both get the same decision.
        let decision = policy.decide(&input)?;
        self.decisions(&policy).cached.put(input, decision);
        Ok(decision)
    }

    /// Locks the cached decisions of `policy`. If they are those of an earlier policy, drops them
    /// first.
    fn decisions(&self, policy: &Arc<AnyPolicy>) -> MutexGuard<'_, Decisions> {
        let mut decisions = self.decisions.lock();
        if !Arc::ptr_eq(&decisions.policy, policy) {
            decisions.cached.clear();
            decisions.policy = Arc::clone(policy);
        }
        decisions
    }
}

impl PolicySource {
    fn current(&self) -> Arc<AnyPolicy> {
        match self {
            Self::Default(policy) => Arc::clone(policy),
            Self::File(policy) => policy.current(),
        }
    }
}
