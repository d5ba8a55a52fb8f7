//! Pointers as they were read last: those that others may replace are read again and again.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tracing::debug;

use super::Tiers;
use crate::at_once::map_at_once;
use crate::store::TierError;
use crate::store::key::Key;
use crate::store::tier::{Tier as _, Whole};

/// How old a pointer may be that others may have replaced.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The same, and for names of repositories, where people look at many.
pub(super) const LATELY: Duration = Duration::from_secs(30);
/// So many pointers are remembered, 1 KiB each as a rule.
const MAX_POINTERS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");
/// So many are read at once where people look at many.
const MAX_READERS: usize = 16;

type Known = LruCache<Key, (Instant, Option<Whole>)>;

/// Pointers as they were read last.
#[derive(Debug)]
pub(super) struct Pointers(Mutex<Known>);

impl Default for Pointers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_POINTERS)))
    }
}

impl Pointers {
    /// What was read of a pointer, unless that is too long ago.
    #[expect(clippy::option_option, reason = "it may be known that there is none")]
    fn known(&self, key: &Key, max_age: Duration) -> Option<Option<Whole>> {
        let mut known = self.lock();
        let (at, whole) = known.get(key)?;
        (at.elapsed() < max_age).then(|| whole.clone())
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().pop(key);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    pub(super) fn read_pointer(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        if let Some(known) = self.pointers.known(key, MAX_AGE) {
            return Ok(known);
        }
        let read_at = Instant::now();
        let read = match self.remote().read_whole(key) {
            // What is published goes on being served. A swap with this version fails.
            Err(error) if error.is_outage() => {
                debug!(%key, %error, "A pointer is read from the disk");
                return match self.local().read_whole(key) {
                    Ok(Some(copy)) => Ok(Some(copy)),
                    _ => Err(error),
                };
            }
            read => read?,
        };
        let copy = self.local().read_whole(key).ok().flatten();
        match (&read, copy) {
            (Some(read), copy) if copy.as_ref().map(|copy| &copy.bytes) != Some(&read.bytes) => {
                self.keep(key, &read.bytes);
            }
            (None, Some(_)) => {
                self.local().delete(std::slice::from_ref(key)).ok();
            }
            _ => {}
        }
        let known = (read_at, read.clone());
        self.pointers.lock().put(key.clone(), known);
        Ok(read)
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
