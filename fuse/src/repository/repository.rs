//! [`Repository`]: a repository that the mount shows.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use cachewfs_format::RepoName;
use parking_lot::{Mutex, RwLock};

use crate::view::View;

/// A repository that the mount shows.
#[derive(Debug)]
pub(crate) struct Repository {
    pub name: RepoName,
    pub(super) view: RwLock<View>,
    /// The number of switches to a newer snapshot.
    pub(super) catch_ups: AtomicU64,
    /// The time of the last successful poll of the daemon in seconds since the epoch, or 0.
    pub(super) checked_at: AtomicU64,
    pub(super) last_error: Mutex<Option<String>>,
    /// Why hydration fetches nothing: the cache has no room for the snapshot.
    pub(super) unhydrated: Mutex<Option<String>>,
    /// The lock that lets one catch-up run at a time.
    pub(super) catching_up: tokio::sync::Mutex<()>,
    /// The packs and commit-graphs that are shown but no longer in the snapshot, each with the time
    /// at which it left.
    pub(super) superseded: Mutex<HashMap<Vec<u8>, Instant>>,
}

impl Repository {
    pub(super) fn new(name: &RepoName, view: View) -> Self {
        Self {
            name: name.clone(),
            view: RwLock::new(view),
            catch_ups: AtomicU64::new(0),
            checked_at: AtomicU64::new(0),
            last_error: Mutex::default(),
            unhydrated: Mutex::default(),
            catching_up: tokio::sync::Mutex::default(),
            superseded: Mutex::default(),
        }
    }

    /// Returns the current view. It stays consistent while the repository switches.
    pub(crate) fn view(&self) -> View {
        self.view.read().clone()
    }

    pub(super) fn show(&self, view: View) {
        *self.view.write() = view;
    }

    /// Returns the error of the last poll, or `None` if it succeeded.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Returns why hydration fetches nothing, or `None` if it does.
    pub(super) fn unhydrated(&self) -> Option<String> {
        self.unhydrated.lock().clone()
    }

    /// Notes why hydration fetches nothing, or that it does.
    pub(super) fn note_unhydrated(&self, reason: Option<String>) {
        *self.unhydrated.lock() = reason;
    }

    /// Notes the error of the last poll, or that it succeeded. Returns whether the error is another
    /// one than before.
    pub(super) fn note_error(&self, error: Option<String>) -> bool {
        let mut last = self.last_error.lock();
        let is_new = *last != error;
        *last = error;
        is_new
    }
}
