//! Taking leases, and looking who has them.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cachewfs_format::RepoName;
use lru::LruCache;
use tracing::{info, warn};

use super::error::LeaseError;
use super::judge::{Claimed, Seen, Verdict, judge};
use super::record::Record;
use super::{Holder, Lease};
use crate::error_chain::chain;
use crate::metrics::{LeaseEvent, Metrics};
use crate::store::Store;
use crate::store::key::Key;
use crate::store::tier::{Version, Written};

/// Of so many leases that others hold it is remembered since when. There are as many as other daemons
/// publish at once what this one has, too.
const MAX_SEEN: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

/// So often a lease is looked at again that changed when it was about to be taken.
const TRIES: usize = 3;

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody else has the lease now.
    Lease(Lease),
    /// Another daemon has it.
    HeldBy(Arc<str>),
    /// There are no leases, or this one can't be used: what it is for goes on without.
    None,
}

/// The leases of one daemon.
#[derive(Debug)]
pub(crate) struct Leases {
    me: Holder,
    metrics: Arc<Metrics>,
    seen: Mutex<LruCache<Key, Seen>>,
}

impl Leases {
    pub(crate) fn new(me: Holder, metrics: Arc<Metrics>) -> Self {
        let seen = Mutex::new(LruCache::new(MAX_SEEN));
        Self { me, metrics, seen }
    }

    /// Takes the lease on the publishes of `repo`, unless somebody has it. It runs for `ttl`, zero for
    /// no leases, beyond its last renewal; its token is above `fence`. Blocks.
    pub(crate) fn claim(
        &self,
        store: &Store,
        repo: &RepoName,
        (ttl, fence): (Duration, u64),
    ) -> Claim {
        if ttl.is_zero() {
            return Claim::None;
        }
        let key = Key::lease(&store.shelf(repo));
        let claim = self.try_claim((store, &key), (ttl, fence));
        claim.unwrap_or_else(|error| {
            self.metrics.leases.note(LeaseEvent::Failed);
            let error = chain(&error);
            warn!(%repo, lease = %key, error, "Publishing {repo} without a lease: another daemon may do the same");
            Claim::None
        })
    }

    /// Who has the lease on the publishes of `repo`, as long as it can be read. Blocks.
    pub(crate) fn holder(&self, store: &Store, repo: &RepoName) -> Option<Arc<str>> {
        let key = Key::lease(&store.shelf(repo));
        match self.look(store, &key) {
            Ok((_, Verdict::HeldBy(holder))) => Some(holder.to_string().into()),
            // Who claims it is told why it can't be read.
            Ok((_, Verdict::Free { .. })) | Err(_) => None,
        }
    }

    fn try_claim(
        &self,
        (store, key): (&Store, &Key),
        (ttl, fence): (Duration, u64),
    ) -> Result<Claim, LeaseError> {
        for _ in 0..TRIES {
            let (version, verdict) = self.look(store, key)?;
            let (last_token, has_expired) = match verdict {
                Verdict::HeldBy(holder) => return Ok(Claim::HeldBy(holder.to_string().into())),
                Verdict::Free {
                    last_token,
                    has_expired,
                } => (last_token, has_expired),
            };
            let what = "its token is the last there is";
            let token = last_token.max(fence).checked_add(1);
            let token = token.ok_or(LeaseError::Strange { what })?;
            let record = Record::new(self.me.clone(), token, ttl);
            let began = Instant::now();
            let json = record.to_json()?;
            if store.tier().swap(key, version.as_ref(), &json)? == Written::TooLate {
                continue;
            }
            self.lock_seen().pop(key);
            self.metrics.leases.note(LeaseEvent::Acquired);
            if has_expired {
                self.metrics.leases.note(LeaseEvent::TakenOver);
                info!(lease = %key, token, "Took over a lease that was not released");
            }
            let claimed = Claimed::written(record, began);
            let of = (store.clone(), key.clone());
            let lease = Lease::hold(of, claimed, Arc::clone(&self.metrics))?;
            return Ok(Claim::Lease(lease));
        }
        Ok(Claim::HeldBy("another daemon".into()))
    }

    /// Reads a lease; gives its version, if there is one.
    fn look(&self, store: &Store, key: &Key) -> Result<(Option<Version>, Verdict), LeaseError> {
        let found = store.tier().read_whole(key)?;
        let record = match &found {
            Some(found) => Some(Record::parse(&found.bytes)?),
            None => None,
        };
        let version = found.map(|found| found.version);
        let mut all = self.lock_seen();
        let mut seen = all.pop(key);
        let found = record.as_ref().zip(version.as_ref());
        let verdict = judge(found, &mut seen, (&self.me, Instant::now()));
        if let Some(seen) = seen {
            all.put(key.clone(), seen);
        }
        Ok((version, verdict))
    }

    fn lock_seen(&self) -> MutexGuard<'_, LruCache<Key, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
