//! [`Recent`]: remembers answers for a limited time, and a limited number of them.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

/// Answers by question, each with the time when the question was asked. The least recently used
/// answer is dropped first.
///
/// The time is that of the question, so that the duration of the answer counts as age.
#[derive(Debug)]
pub struct Recent<K: Hash + Eq, V>(Mutex<LruCache<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Returns an empty memory for at most `max_len` answers.
    pub fn new(max_len: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(max_len)))
    }

    /// Returns the answer, unless its age is `max_age` or more.
    pub fn get(&self, question: &K, max_age: Duration) -> Option<V> {
        let mut all = self.0.lock();
        let (asked_at, answer) = all.get(question)?;
        (asked_at.elapsed() < max_age).then(|| answer.clone())
    }

    /// Remembers an answer. Returns `false` if the answer to a later question is known: answers may
    /// arrive in another order than their questions were asked.
    pub fn put(&self, question: K, asked_at: Instant, answer: V) -> bool {
        let mut all = self.0.lock();
        let is_newer = all.peek(&question).is_none_or(|last| last.0 <= asked_at);
        if is_newer {
            all.put(question, (asked_at, answer));
        }
        is_newer
    }

    /// Forgets the answer.
    pub fn forget(&self, question: &K) {
        self.0.lock().pop(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_known_until_it_is_too_old_or_a_newer_one_comes() {
        let recent = Recent::new(NonZeroUsize::MIN);
        let now = Instant::now();
        let earlier = now.checked_sub(10 * SECOND).unwrap();

        assert!(recent.put("a", earlier, 1));
        assert_eq!(recent.get(&"a", 9 * SECOND), None);
        assert_eq!(recent.get(&"a", 60 * SECOND), Some(1));
        assert!(recent.put("a", now, 2));
        assert!(!recent.put("a", earlier, 1));
        assert_eq!(recent.get(&"a", 60 * SECOND), Some(2));
        assert!(recent.put("b", now, 3));
        assert_eq!(recent.get(&"a", 60 * SECOND), None);
        recent.forget(&"b");
        assert_eq!(recent.get(&"b", 60 * SECOND), None);
    }
}
