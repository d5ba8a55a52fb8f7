//! Which manifests are there: another daemon may have deleted one that this one has a copy of.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::Tiers;
use crate::store::TierError;
use crate::store::key::Key;
use crate::store::tier::{Stat, Tier as _};

/// For so long a manifest that was there counts as there: who deletes one waits longer before its segments go.
const MAX_AGE: Duration = Duration::from_secs(15);
/// So many are remembered, some 200 bytes each.
const MAX_MANIFESTS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

type Known = LruCache<Key, (Instant, Stat)>;

/// Manifests that were there when they were looked for last.
#[derive(Debug)]
pub(super) struct Manifests(Mutex<Known>);

impl Default for Manifests {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_MANIFESTS)))
    }
}

impl Manifests {
    pub(super) fn forget(&self, key: &Key) {
        self.lock().pop(key);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    pub(super) fn stat_manifest(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        if let Some(&(at, stat)) = self.manifests.lock().get(key)
            && at.elapsed() < MAX_AGE
        {
            return Ok(Some(stat));
        }
        let looked_at = Instant::now();
        let stat = match self.remote().stat(key) {
            Err(error) if error.is_outage() => {
                return self.local().stat(key).map_err(|_| error);
            }
            stat => stat?,
        };
        match stat {
            Some(stat) => drop(self.manifests.lock().put(key.clone(), (looked_at, stat))),
            None => self.drop_copy(key),
        }
        Ok(stat)
    }
}
