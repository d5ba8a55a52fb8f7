//! The names that were looked up, with the last answer for each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{RepoError, Repository};

/// How long the answer to a lookup is remembered, in which the daemon is not asked for the name
/// again. Reports show failures for as long.
const ANSWER_TTL: Duration = Duration::from_secs(30);
/// At most about this many names are remembered before failed ones are forgotten. Any user may look
/// up any number of names.
const MAX_FAILED_NAMES: usize = 4096;

/// The names that were looked up, and the names of repositories.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    slots: BTreeMap<RepoName, Arc<Slot>>,
    /// The repositories that are loaded or kept on disk.
    known: BTreeSet<String>,
}

/// The state of a repository name that was looked up: loaded, failed, or being resolved.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) repository: OnceCell<Arc<Repository>>,
    lookup: Mutex<LookupState>,
}

#[derive(Debug, Default)]
struct LookupState {
    failure: Option<(Instant, RepoError)>,
    /// Whether the daemon has said that the name is no repository, and it may be the beginning of
    /// names.
    is_directory: bool,
    /// When a lookup last checked whether a directory has become a repository.
    checked_at: Option<Instant>,
}

impl Slots {
    /// Returns the state of `name`, which begins as unknown. Calls `on_forgotten` with a function
    /// that says which names are still remembered, if others had to be forgotten.
    pub(super) fn slot(
        &self,
        name: &RepoName,
        on_forgotten: impl FnOnce(&dyn Fn(&RepoName) -> bool),
    ) -> Arc<Slot> {
        let mut names = self.0.lock();
        if names.slots.len() > MAX_FAILED_NAMES && !names.slots.contains_key(name) {
            // A lookup in progress holds a second reference to its slot.
            let is_needed =
                |slot: &Arc<Slot>| slot.repository.get().is_some() || Arc::strong_count(slot) > 1;
            names.slots.retain(|_, slot| is_needed(slot));
            on_forgotten(&|name| names.slots.contains_key(name));
        }
        Arc::clone(names.slots.entry(name.clone()).or_default())
    }

    /// Returns the repository `name` if it is loaded.
    pub(super) fn loaded(&self, name: &RepoName) -> Option<Arc<Repository>> {
        self.0.lock().slots.get(name)?.repository.get().cloned()
    }

    /// Returns the repositories that are loaded, sorted by name.
    pub(super) fn all_loaded(&self) -> Vec<Arc<Repository>> {
        let names = self.0.lock();
        let loaded = names
            .slots
            .values()
            .filter_map(|slot| slot.repository.get());
        loaded.cloned().collect()
    }

    /// Returns the names whose last lookup failed recently, each with the error.
    pub(super) fn failed(&self) -> Vec<(RepoName, RepoError)> {
        let names = self.0.lock();
        let failed = names.slots.iter().filter_map(|(name, slot)| {
            let is_loaded = slot.repository.get().is_some();
            Some((name.clone(), slot.recent_failure().filter(|_| !is_loaded)?))
        });
        failed.collect()
    }

    /// Returns the names that were found to be no repositories, but directories.
    pub(super) fn directories(&self) -> Vec<RepoName> {
        let names = self.0.lock();
        let directories = names.slots.iter().filter(|(_, slot)| slot.is_directory());
        directories.map(|(name, _)| name.clone()).collect()
    }

    /// Returns the error of the last lookup of `name`, or `None` if it did not fail recently.
    pub(super) fn failure(&self, name: &RepoName) -> Option<RepoError> {
        self.0.lock().slots.get(name)?.recent_failure()
    }

    /// Forgets that a lookup of `name` failed.
    pub(super) fn forget_failure(&self, name: &RepoName) {
        if let Some(slot) = self.0.lock().slots.get(name) {
            slot.note(None);
        }
    }

    /// Notes that `name` is a repository.
    pub(super) fn note_known(&self, name: &RepoName) {
        self.0.lock().known.insert(name.as_str().to_owned());
    }

    /// Notes that `name` is no repository any longer.
    pub(super) fn note_unknown(&self, name: &RepoName) {
        self.0.lock().known.remove(name.as_str());
    }

    /// Returns the repositories that are loaded or kept on disk.
    pub(super) fn all_known(&self) -> Vec<String> {
        self.0.lock().known.iter().cloned().collect()
    }

    /// Returns whether `name` is a repository that is loaded or kept on disk.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.0.lock().known.contains(name)
    }

    /// Returns whether the name of a known repository begins with `prefix` and a slash.
    pub(super) fn has_names_below(&self, prefix: &str) -> bool {
        let names = self.0.lock();
        let mut after = names.known.range::<str, _>(from(&format!("{prefix}/")));
        after.next().is_some_and(|name| is_below(name, prefix))
    }

    /// Returns the path segments directly below `prefix` in the names of known repositories.
    pub(super) fn names_below(&self, prefix: &str) -> Vec<String> {
        let start = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        let names = self.0.lock();
        let below = names.known.range::<str, _>(from(&start));
        let mut found: Vec<String> = below
            .map_while(|name| name.strip_prefix(&start)?.split('/').next())
            .map(str::to_owned)
            .collect();
        // "a-b/x" sorts before "a/x", so equal names are neighbours only after sorting.
        found.sort();
        found.dedup();
        found
    }
}

fn from(start: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Included(start), Bound::Unbounded)
}

fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Slot {
    /// Shows a repository that was loaded otherwise than by a lookup.
    pub(super) fn adopt(&self, repository: &Arc<Repository>) {
        // Fails if a lookup was faster. A mount that adopts serves no lookups yet.
        self.repository.set(Arc::clone(repository)).ok();
    }

    /// Notes the error of the last lookup, or that it succeeded.
    pub(super) fn note(&self, error: Option<RepoError>) {
        self.lookup.lock().failure = error.map(|error| (Instant::now(), error));
    }

    /// Notes that the name is no repository, and may be the beginning of names.
    pub(super) fn note_directory(&self) {
        let mut lookup = self.lookup.lock();
        lookup.is_directory = true;
        lookup.checked_at = Some(Instant::now());
    }

    /// Returns whether the name was found to be no repository, however long ago.
    pub(super) fn is_directory(&self) -> bool {
        self.lookup.lock().is_directory
    }

    /// Returns whether it is time to check again that the name is no repository. If so, counts the
    /// check as made.
    pub(super) fn take_check(&self) -> bool {
        let mut lookup = self.lookup.lock();
        let is_due = lookup
            .checked_at
            .is_none_or(|at| at.elapsed() >= ANSWER_TTL);
        if is_due {
            lookup.checked_at = Some(Instant::now());
        }
        is_due
    }

    /// Returns the error that a daemon answered to the last lookup, unless it is older than
    /// [`ANSWER_TTL`]. Other errors may end at any moment, so the next lookup asks again.
    pub(super) fn recent_answer(&self) -> Option<RepoError> {
        self.recent_failure().filter(RepoError::is_answer)
    }

    /// Returns the error of the last lookup, unless it is older than [`ANSWER_TTL`].
    fn recent_failure(&self) -> Option<RepoError> {
        let lookup = self.lookup.lock();
        let (at, error) = lookup.failure.as_ref()?;
        (at.elapsed() < ANSWER_TTL).then(|| error.clone())
    }
}

#[cfg(test)]
impl Slots {
    /// Makes all memories older.
    pub(super) fn age(&self, by: Duration) {
        for slot in self.0.lock().slots.values() {
            let mut lookup = slot.lookup.lock();
            if let Some((at, _)) = &mut lookup.failure {
                *at -= by;
            }
            lookup.checked_at = lookup.checked_at.and_then(|at| at.checked_sub(by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_a_prefix_are_those_of_known_repositories() {
        let slots = Slots::default();
        for name in ["h/a/x", "h/a-b/x", "h/a/y/z", "h/c", "h2/a/x", "h.org/x"] {
            slots.note_known(&RepoName::parse(name).unwrap());
        }

        assert_eq!(slots.names_below(""), ["h", "h.org", "h2"]);
        assert_eq!(slots.names_below("h"), ["a", "a-b", "c"]);
        assert_eq!(slots.names_below("h/a"), ["x", "y"]);
        assert!(slots.names_below("h/c").is_empty());
        assert!(slots.has_names_below("h/a/y") && slots.has_names_below("h2"));
        assert!(!slots.has_names_below("h/c") && !slots.has_names_below("h/a/x"));
    }
}
