//! Which manifests are there: another daemon may have deleted one that this one has a copy of.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::Tiers;
use crate::store::TierError;
use crate::store::clock::Notice;
use crate::store::key::Key;
use crate::store::tier::{Stat, Tier as _};

/// So many are remembered, some 200 bytes each.
const MAX_MANIFESTS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

type Known = LruCache<Key, (Instant, Stat)>;

/// Manifests that were there when they were looked for last.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    known: Arc<Mutex<Known>>,
    /// For so long a manifest that was there counts as there.
    max_age: Duration,
}

impl Manifests {
    /// Who deletes a manifest waits for longer before its segments go.
    pub(super) fn new(notice: Notice) -> Self {
        Self {
            known: Arc::new(Mutex::new(LruCache::new(MAX_MANIFESTS))),
            max_age: notice.known(),
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().pop(key);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    pub(super) fn stat_manifest(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        if let Some(&(at, stat)) = self.manifests.lock().get(key)
            && at.elapsed() < self.manifests.max_age
        {
            return Ok(Some(stat));
        }
        let copy = self.local().stat(key).ok().flatten();
        self.ask_or_copy(key, copy, self.manifest_look(key))
    }

    /// Looks for a manifest in the bucket, and notes what is found.
    fn manifest_look(&self, key: &Key) -> impl FnOnce() -> Result<Option<Stat>, TierError> + use<> {
        let (fetcher, manifests) = (self.fetcher.clone(), self.manifests.clone());
        let key = key.clone();
        move || {
            let looked_at = Instant::now();
            let stat = fetcher.remote.stat(&key)?;
            match stat {
                Some(stat) => drop(manifests.lock().put(key, (looked_at, stat))),
                None => fetcher.space.drop_copy(&key),
            }
            Ok(stat)
        }
    }
}
