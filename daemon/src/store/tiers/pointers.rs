//! Pointers as they were read last: those that others may replace are read again and again.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tracing::warn;

use super::Tiers;
use crate::at_once::map_at_once;
use crate::store::key::Key;
use crate::store::tier::{Tier as _, Whole};
use crate::store::{DiskTier, TierError};

/// How old a pointer may be that others may have replaced.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The same, and for names of repositories, where people look at many.
pub(super) const LATELY: Duration = Duration::from_secs(30);
/// So many pointers are remembered, 1 to 25 KiB each: the longer, the more snapshots they replaced.
const MAX_POINTERS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");
/// So many are read at once where people look at many.
const MAX_READERS: usize = 16;

/// Pointers as they were read last.
#[derive(Clone, Debug)]
pub(super) struct Pointers(Arc<Mutex<LruCache<Key, Known>>>);

/// What is known of a pointer.
#[derive(Debug)]
struct Known {
    /// When it was asked for, or written by this daemon.
    at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Read(Option<Whole>),
    /// What it is now is in the bucket.
    Written,
}

impl Default for Pointers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_POINTERS))))
    }
}

impl Pointers {
    /// What was read of a pointer, unless that is too long ago.
    #[expect(clippy::option_option, reason = "it may be known that there is none")]
    fn known(&self, key: &Key, max_age: Duration) -> Option<Option<Whole>> {
        let mut all = self.lock();
        let known = all.get(key)?;
        match &known.state {
            State::Read(read) if known.at.elapsed() < max_age => Some(read.clone()),
            State::Read(_) | State::Written => None,
        }
    }

    /// Notes what was read; `false` if it may be older than what is known.
    fn note(&self, key: &Key, known: Known) -> bool {
        let mut all = self.lock();
        let is_newer = all.peek(key).is_none_or(|last| last.at <= known.at);
        if is_newer {
            all.put(key.clone(), known);
        }
        is_newer
    }

    pub(super) fn forget(&self, key: &Key) {
        let written = Known {
            at: Instant::now(),
            state: State::Written,
        };
        self.lock().put(key.clone(), written);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    pub(super) fn read_pointer(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        if let Some(known) = self.pointers.known(key, MAX_AGE) {
            return Ok(known);
        }
        // What is published goes on being served. A swap with this version fails.
        let copy = self.local().read_whole(key).ok().flatten();
        self.ask_or_copy(key, copy, self.pointer_reader(key))
    }

    /// Reads a pointer from the bucket, and notes and keeps it unless this daemon wrote another meanwhile.
    fn pointer_reader(
        &self,
        key: &Key,
    ) -> impl FnOnce() -> Result<Option<Whole>, TierError> + use<> {
        let (fetcher, pointers, key) = (self.fetcher.clone(), self.pointers.clone(), key.clone());
        move || {
            let at = Instant::now();
            let read = fetcher.remote.read_whole(&key)?;
            let known = Known {
                at,
                state: State::Read(read.clone()),
            };
            if pointers.note(&key, known) {
                keep_pointer(&fetcher.local, &key, read.as_ref());
            }
            Ok(read)
        }
    }

    /// Reads pointers that weren't read lately, some at once.
    pub(super) fn read_pointers_lately(
        &self,
        keys: &[Key],
    ) -> Vec<Result<Option<Whole>, TierError>> {
        let read = |key: &Key| match self.pointers.known(key, LATELY) {
            Some(known) => Ok(known),
            None => self.read_pointer(key),
        };
        map_at_once(keys, MAX_READERS, read)
    }
}

/// Makes the copy on disk the same as what is in the bucket.
fn keep_pointer(local: &DiskTier, key: &Key, read: Option<&Whole>) {
    let copy = local.read_whole(key).ok().flatten();
    let kept = match (read, copy) {
        (Some(read), Some(copy)) if copy.bytes == read.bytes => Ok(()),
        (Some(read), _) => local.put(key, &read.bytes),
        (None, Some(_)) => local.delete(std::slice::from_ref(key)),
        (None, None) => Ok(()),
    };
    if let Err(error) = kept {
        warn!(%key, %error, "The disk takes no copy of what is in the bucket");
    }
}
