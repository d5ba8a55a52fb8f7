//! [`Leases`]: takes leases, and tells which daemon holds one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use lru::LruCache;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::error::LeaseError;
use super::judge::{ClaimedLease, SeenLease, Verdict, judge};
use super::record::LeaseRecord;
use super::{Holder, Lease};
use crate::Store;
use crate::key::Key;
use crate::lease::{LeaseEvent, LeaseMetrics};
use crate::objects::{Version, Written};

/// At most this many leases of other daemons are remembered, each with the time since when it
/// hasn't changed. There are as many as repositories that other daemons publish at the same time. A
/// lease that is forgotten expires later.
const MAX_SEEN: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

/// How often a claim looks at the lease again after another daemon changed it between the look and
/// the swap.
const TRIES: usize = 3;

/// The outcome of a claim.
#[derive(Debug)]
pub enum Claim {
    /// This daemon holds the lease now.
    Lease(Lease),
    /// Another daemon holds it.
    HeldBy(Arc<str>),
    /// Leases are turned off, or this one can't be used. The publish goes on without a lease.
    None,
}

/// The leases of one daemon.
#[derive(Debug)]
pub struct Leases {
    me: Holder,
    metrics: Arc<LeaseMetrics>,
    seen: Mutex<LruCache<Key, SeenLease>>,
}

impl Leases {
    pub fn new(me: Holder, metrics: Arc<LeaseMetrics>) -> Self {
        let seen = Mutex::new(LruCache::new(MAX_SEEN));
        Self { me, metrics, seen }
    }

    /// Takes the lease on publishing `repo`, unless another daemon holds it.
    ///
    /// The lease expires `ttl` after its last renewal; a `ttl` of zero turns leases off. Its token
    /// is higher than `fence`, the token of the present pointer.
    pub async fn claim(
        &self,
        store: &Store,
        repo: &RepoName,
        (ttl, fence): (Duration, u64),
    ) -> Claim {
        if ttl.is_zero() {
            return Claim::None;
        }
        let key = Key::lease(&store.shelf(repo));
        let claim = self.try_claim((store, &key), (ttl, fence)).await;
        claim.unwrap_or_else(|error| {
            self.metrics.note(LeaseEvent::Failed);
            let error = chain(&error);
            warn!(
                %repo, lease = %key, error,
                "Can't use the lease of {repo}: publishing without it, \
                 perhaps at the same time as another daemon"
            );
            Claim::None
        })
    }

    /// Returns the daemon that holds the lease on publishing `repo`, or `None` if none does or the
    /// lease can't be read.
    pub async fn holder(&self, store: &Store, repo: &RepoName) -> Option<Arc<str>> {
        let key = Key::lease(&store.shelf(repo));
        match self.look(store, &key).await {
            Ok((_, Verdict::HeldBy(holder))) => Some(holder.to_string().into()),
            // A claim of the lease logs why it can't be read.
            Ok((_, Verdict::Free { .. })) | Err(_) => None,
        }
    }

    async fn try_claim(
        &self,
        (store, key): (&Store, &Key),
        (ttl, fence): (Duration, u64),
    ) -> Result<Claim, LeaseError> {
        for _ in 0..TRIES {
            let (version, verdict) = self.look(store, key).await?;
            let (last_token, has_expired) = match verdict {
                Verdict::HeldBy(holder) => return Ok(Claim::HeldBy(holder.to_string().into())),
                Verdict::Free {
                    last_token,
                    has_expired,
                } => (last_token, has_expired),
            };
            let what = "its token can't get any higher";
            // Above the fence too, because the lease object may have been lost or replaced since
            // the pointer was published.
            let token = last_token.max(fence).checked_add(1);
            let token = token.ok_or(LeaseError::Invalid { what })?;
            let record = LeaseRecord::new(self.me.clone(), token, ttl);
            // Taken before the write: the lease must run for its holder no longer than for a daemon
            // that sees it.
            let began = Instant::now();
            let json = record.to_json()?;
            let swapped = store.nearest().swap(key, version.as_ref(), &json);
            if swapped.await? == Written::TooLate {
                continue;
            }
            self.seen.lock().pop(key);
            self.metrics.note(LeaseEvent::Acquired);
            if has_expired {
                self.metrics.note(LeaseEvent::TakenOver);
                info!(lease = %key, token, "Took over a lease that its holder had not released");
            }
            let claimed = ClaimedLease::written(record, began);
            let of = (store.clone(), key.clone());
            let lease = Lease::hold(of, claimed, Arc::clone(&self.metrics))?;
            return Ok(Claim::Lease(lease));
        }
        Ok(Claim::HeldBy("another daemon".into()))
    }

    /// Reads a lease and judges it. Returns its version, or `None` if there is no lease object.
    async fn look(
        &self,
        store: &Store,
        key: &Key,
    ) -> Result<(Option<Version>, Verdict), LeaseError> {
        let found = store.nearest().read_whole(key).await?;
        let record = match &found {
            Some(found) => Some(LeaseRecord::parse(&found.bytes)?),
            None => None,
        };
        let version = found.map(|found| found.version);
        let mut all = self.seen.lock();
        let mut seen = all.pop(key);
        let found = record.as_ref().zip(version.as_ref());
        // `now` is taken after the read. A version that is new here counts as seen from then on, so
        // this daemon can only be late to find a lease expired.
        let verdict = judge(found, &mut seen, (&self.me, Instant::now()));
        if let Some(seen) = seen {
            all.put(key.clone(), seen);
        }
        Ok((version, verdict))
    }
}
