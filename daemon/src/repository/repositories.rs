//! [`Repositories`]: the repositories whose tasks run, by name.

use std::collections::HashMap;
use std::sync::Arc;

use cachewfs_format::RepoName;
use parking_lot::Mutex;

use super::handle::Repository;

/// The repositories whose tasks run, by name.
#[derive(Debug, Default)]
pub(super) struct Repositories(pub(super) Mutex<HashMap<RepoName, Arc<Repository>>>);

impl Repositories {
    pub(super) fn find(&self, name: &RepoName) -> Option<Arc<Repository>> {
        self.0.lock().get(name).cloned()
    }

    pub(super) fn forget(&self, name: &RepoName) {
        self.0.lock().remove(name);
    }
}
