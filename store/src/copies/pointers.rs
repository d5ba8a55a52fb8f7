//! [`CachedPointers`]: remembers pointers for a second, because other daemons may replace them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::{Recent, map_concurrently};
use tracing::warn;

use super::Copies;
use crate::key::Key;
use crate::objects::{Objects as _, Whole};
use crate::{DiskTier, TierError};

/// How long a pointer that other daemons may have replaced is served from memory.
const POINTER_MAX_AGE: Duration = Duration::from_secs(1);
/// How long a pointer, or the list of repositories, is served from memory to listings. Longer,
/// because a listing looks at many of them.
pub(super) const LISTING_MAX_AGE: Duration = Duration::from_secs(30);
/// At most this many pointers are remembered, at 1 to 25 KiB each, depending on how many snapshots
/// they have replaced.
const MAX_POINTERS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");
/// At most this many pointers are read from the bucket at the same time for a listing.
const MAX_READERS: usize = 16;

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
    pub(super) fn read_pointer(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        if let Some(known) = self.pointers.known(key, POINTER_MAX_AGE) {
            return Ok(known);
        }
        // During an outage, published snapshots stay available. A publish can't build on such a
        // copy: its version is not that of the bucket, so the swap fails.
        let copy = self.local().read_whole(key).ok().flatten();
        self.ask_or_copy(key, copy, self.pointer_reader(key))
    }

    /// Returns a function that reads a pointer from the bucket. It remembers and copies the
    /// pointer, unless this daemon has written another one meanwhile.
    fn pointer_reader(
        &self,
        key: &Key,
    ) -> impl FnOnce() -> Result<Option<Whole>, TierError> + use<> {
        let (fetcher, pointers, key) = (self.fetcher.clone(), self.pointers.clone(), key.clone());
        move || {
            let at = Instant::now();
            let read = fetcher.remote.read_whole(&key)?;
            let known = CachedPointer::Read(read.clone());
            if pointers.0.put(key.clone(), at, known) {
                keep_pointer(&fetcher.local, &key, read.as_ref());
            }
            Ok(read)
        }
    }

    /// Returns pointers that may be as old as [`LISTING_MAX_AGE`]. Reads several at the same time.
    pub(crate) fn read_recent(&self, keys: &[Key]) -> Vec<Result<Option<Whole>, TierError>> {
        let read = |key: &Key| match self.pointers.known(key, LISTING_MAX_AGE) {
            Some(known) => Ok(known),
            None => self.read_pointer(key),
        };
        map_concurrently(keys, MAX_READERS, read)
    }
}

/// Makes the local copy equal to the pointer in the bucket.
fn keep_pointer(local: &DiskTier, key: &Key, read: Option<&Whole>) {
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
