//! Repositories in a mount: resolved once, then kept up to date.

mod catch_up;
mod error;
mod hydrate;
mod report;
mod repositories;

pub(crate) use error::RepoError;
pub(crate) use repositories::{Repositories, ResolvedName};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use cachewfs_format::RepoName;

use crate::view::{Generation, StaticTree};

/// A repository that the mount shows.
#[derive(Debug)]
pub(crate) struct Repository {
    /// Its name.
    pub name: RepoName,
    /// `<mount point>/.objects/<host>/<path>`.
    pub objects_directory: PathBuf,
    view: RwLock<View>,
    /// How often it caught up.
    catch_ups: AtomicU64,
    /// When the daemon was last asked with success, in seconds since the epoch; 0 for never.
    checked_at: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// One catch-up at a time.
    catching_up: tokio::sync::Mutex<()>,
    /// Packs and commit-graphs that are still shown and in the snapshot no more, since when.
    superseded: Mutex<HashMap<Vec<u8>, Instant>>,
}

/// What is shown of a repository right now.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Refs, index and work tree.
    pub generation: Arc<Generation>,
    /// Objects: those of the generation at least. A new generation's become visible before its
    /// refs, and old packs stay for a while.
    pub objects: Arc<StaticTree>,
}

impl Repository {
    /// What is shown right now.
    pub(crate) fn view(&self) -> View {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn show(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn note_error(&self, error: Option<String>) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
    }
}
