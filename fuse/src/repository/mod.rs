//! The repositories that a mount shows.
//!
//! ```text
//! repositories.rs   lookup of a name: what is known (slots.rs, names.rs, hosts.rs), or ask
//!       │           whether the daemons answer is in reachability.rs
//!       ├─► load.rs       first lookup of a repository: from a daemon, or from disk
//!       ├─► hydrate.rs    fetch segments in the background, as the options say
//!       └─► catch_up.rs   poll the daemon; switch to newer snapshots
//! ```
//!
//! `report.rs` has the reports for `cachewfs status`, and the pins. `hand_over.rs` passes all of
//! it to another process.

mod catch_up;
mod error;
mod hand_over;
mod hosts;
mod hydrate;
mod load;
mod names;
mod reachability;
mod report;
mod repositories;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use error::RepoError;
pub(crate) use hydrate::kept_of;
pub(crate) use names::is_probed;
pub(crate) use repositories::{Repositories, ResolvedName};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use cachewfs_format::RepoName;
use parking_lot::{Mutex, RwLock};

use crate::view::{Generation, StaticTree};

/// A repository that the mount shows.
#[derive(Debug)]
pub(crate) struct Repository {
    pub name: RepoName,
    view: RwLock<View>,
    /// The number of switches to a newer snapshot.
    catch_ups: AtomicU64,
    /// The time of the last successful poll of the daemon in seconds since the epoch, or 0.
    checked_at: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Why hydration fetches nothing: the cache has no room for the snapshot.
    unhydrated: Mutex<Option<String>>,
    /// The lock that lets one catch-up run at a time.
    catching_up: tokio::sync::Mutex<()>,
    /// The packs and commit-graphs that are shown but no longer in the snapshot, each with the time
    /// at which it left.
    superseded: Mutex<HashMap<Vec<u8>, Instant>>,
}

/// The state of a repository as the mount shows it at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The generation whose refs, index and work tree are shown.
    pub generation: Arc<Generation>,
    /// The objects shown: all of `generation`, and possibly more. Objects of a newer generation
    /// appear before its refs, and superseded packs stay for a while.
    pub objects: Arc<StaticTree>,
}

impl Repository {
    /// Returns the current view. It stays consistent while the repository switches.
    pub(crate) fn view(&self) -> View {
        self.view.read().clone()
    }

    fn show(&self, view: View) {
        *self.view.write() = view;
    }

    /// Returns the error of the last poll, or `None` if it succeeded.
    fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Returns why hydration fetches nothing, or `None` if it does.
    fn unhydrated(&self) -> Option<String> {
        self.unhydrated.lock().clone()
    }

    /// Notes why hydration fetches nothing, or that it does.
    fn note_unhydrated(&self, reason: Option<String>) {
        *self.unhydrated.lock() = reason;
    }

    /// Notes the error of the last poll, or that it succeeded. Returns whether the error is another
    /// one than before.
    fn note_error(&self, error: Option<String>) -> bool {
        let mut last = self.last_error.lock();
        let is_new = *last != error;
        *last = error;
        is_new
    }
}
