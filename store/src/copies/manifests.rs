//! [`SeenManifests`]: remembers for a short time that manifests exist. Another daemon may have
//! deleted a manifest of which this daemon has a copy.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::Recent;

use super::Copies;
use crate::TierError;
use crate::clock::NoticePeriod;
use crate::key::Key;
use crate::objects::{Objects as _, Stat};

/// At most this many manifests are remembered, at about 200 bytes each.
const MAX_MANIFESTS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

/// Manifests that existed when the bucket was last asked.
#[derive(Clone, Debug)]
pub(super) struct SeenManifests {
    known: Arc<Recent<Key, Stat>>,
    /// How long a manifest that existed counts as existing.
    max_age: Duration,
}

impl SeenManifests {
    /// Returns an empty set. The segments of a deleted manifest stay for longer than a manifest is
    /// remembered, so a reader with a remembered manifest finds them.
    pub(super) fn new(notice: NoticePeriod) -> Self {
        Self {
            known: Arc::new(Recent::new(MAX_MANIFESTS)),
            max_age: notice.manifest_cache_time(),
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.known.forget(key);
    }
}

impl Copies {
    pub(super) async fn stat_manifest(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        let known = self.manifests.known.get(key, self.manifests.max_age);
        if known.is_some() {
            return Ok(known);
        }
        let copy = self.local().stat(key).await.ok().flatten();
        self.ask_or_copy(key, copy, self.stat_in_bucket(key)).await
    }

    /// Looks for a manifest in the bucket and remembers the answer.
    fn stat_in_bucket(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Stat>, TierError>> + Send + use<> {
        let (fetcher, manifests) = (self.fetcher.clone(), self.manifests.clone());
        let key = key.clone();
        async move {
            let looked_at = Instant::now();
            let stat = fetcher.remote.stat(&key).await?;
            match stat {
                Some(stat) => drop(manifests.known.put(key, looked_at, stat)),
                // Another daemon has deleted it, so the copy must not be served in an outage.
                None => fetcher.drop_copy(&key).await,
            }
            Ok(stat)
        }
    }
}
