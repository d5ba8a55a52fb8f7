//! [`CachedPointers`]: remembers pointers for a second, because other daemons may replace them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::Recent;
use futures_util::stream::{self, StreamExt as _};
use tracing::warn;

use super::Copies;
use super::fetch::Fetcher;
use crate::TierError;
use crate::directory::Directory;
use crate::key::Key;
use crate::objects::{Objects as _, Whole};
use crate::tiers::MAX_READERS;

/// How long a pointer that other daemons may have replaced is served from memory.
const POINTER_MAX_AGE: Duration = Duration::from_secs(1);
/// How long a pointer, or the list of repositories, is served from memory to listings. Longer,
/// because a listing looks at many of them.
pub(super) const LISTING_MAX_AGE: Duration = Duration::from_secs(30);
/// At most this many pointers are remembered, at 1 to 25 KiB each, depending on how many snapshots
/// they have replaced.
const MAX_POINTERS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

/// Pointers as they were last read.
#[derive(Clone, Debug)]
pub(super) struct CachedPointers(Arc<Recent<Key, CachedPointer>>);

/// The last state of a pointer that this daemon knows.
#[derive(Clone, Debug)]
enum CachedPointer {
    /// The answer of the bucket.
    Read(Option<Whole>),
    /// This daemon has written it. The present one is in the bucket.
    Written,
}

impl Default for CachedPointers {
    fn default() -> Self {
        Self(Arc::new(Recent::new(MAX_POINTERS)))
    }
}

impl CachedPointers {
    /// Returns the last answer for a pointer, unless it is older than `max_age`.
    #[expect(clippy::option_option, reason = "it may be known that there is none")]
    fn known(&self, key: &Key, max_age: Duration) -> Option<Option<Whole>> {
        match self.0.get(key, max_age)? {
            CachedPointer::Read(read) => Some(read),
            CachedPointer::Written => None,
        }
    }

    /// Forgets an answer, and also discards the answers of reads that are in flight.
    pub(super) fn forget(&self, key: &Key) {
        let written = CachedPointer::Written;
        self.0.put(key.clone(), Instant::now(), written);
    }
}

impl Copies {
    pub(super) async fn read_pointer(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        if let Some(known) = self.pointers.known(key, POINTER_MAX_AGE) {
            return Ok(known);
        }
        // During an outage, published snapshots stay available. A publish can't build on such a
        // copy: its version is not that of the bucket, so the swap fails.
        let copy = self.local().read_whole(key).await.ok().flatten();
        self.ask_or_copy(key, copy, self.read_bucket_pointer(key))
            .await
    }

    /// Reads a pointer from the bucket. Remembers and copies the pointer, unless this daemon has
    /// written another one meanwhile.
    fn read_bucket_pointer(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Whole>, TierError>> + Send + use<> {
        let (fetcher, pointers, key) = (self.fetcher.clone(), self.pointers.clone(), key.clone());
        async move {
            let at = Instant::now();
            let read = fetcher.remote.read_whole(&key).await?;
            let known = CachedPointer::Read(read.clone());
            if pointers.0.put(key.clone(), at, known) {
                let read = read.clone();
                let keep = move |fetcher: &Fetcher| {
                    keep_pointer(fetcher.local.directory(), &key, read.as_ref());
                };
                fetcher.run(keep).await;
            }
            Ok(read)
        }
    }

    /// Returns pointers that may be as old as [`LISTING_MAX_AGE`]. Reads several at the same time.
    pub(crate) async fn read_recent(&self, keys: &[Key]) -> Vec<Result<Option<Whole>, TierError>> {
        let read = async |key: &Key| match self.pointers.known(key, LISTING_MAX_AGE) {
            Some(known) => Ok(known),
            None => self.read_pointer(key).await,
        };
        let reads = stream::iter(keys).map(read);
        reads.buffered(MAX_READERS).collect().await
    }
}

/// Makes the local copy equal to the pointer in the bucket. Blocks.
fn keep_pointer(local: &Directory, key: &Key, read: Option<&Whole>) {
    let copy = local.read_whole(key).ok().flatten();
    let kept = match (read, copy) {
        (Some(read), Some(copy)) if copy.bytes == read.bytes => Ok(()),
        (Some(read), _) => local.put(key, &read.bytes),
        (None, Some(_)) => local.delete(std::slice::from_ref(key)),
        (None, None) => Ok(()),
    };
    if let Err(error) = kept {
        warn!(%key, %error, "Can't make a local copy of a pointer of the bucket");
    }
}
