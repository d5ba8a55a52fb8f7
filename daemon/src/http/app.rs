//! [`App`]: the state that all requests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::{ArchiveKind, RepoName};

use super::body_budget::BodyBudget;
use super::catalog::Catalog;
use super::git_protocol::GitServer;
use super::status::Reports;
use crate::auth::Access;
use crate::readiness::Lifecycle;
use crate::repository::{Bundles, Context, LfsRuns, MirrorReader, Registry, Repository};
use crate::store::{Store, StoreError};

/// The state that all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) context: Arc<Context>,
    pub(super) registry: Arc<Registry>,
    pub(super) reader: Arc<MirrorReader>,
    pub(super) bundles: Arc<Bundles>,
    pub(super) lfs: Arc<LfsRuns>,
    pub(super) store: Store,
    pub(super) catalog: Arc<Catalog>,
    pub(super) git: Arc<GitServer>,
    /// The budget for request bodies in memory.
    pub(super) body_budget: BodyBudget,
    pub(super) access: Access,
    pub(super) began: Instant,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) status: Reports,
}

impl App {
    /// Returns all repositories of which this daemon has a mirror, and those that are in the store
    /// without one: another daemon publishes them, or this one did before its mirror was removed.
    pub(super) async fn repositories(
        &self,
    ) -> Result<BTreeMap<RepoName, Option<Arc<Repository>>>, StoreError> {
        let mut all: BTreeMap<_, _> = self
            .registry
            .all()
            .into_iter()
            .map(|repository| (repository.name().clone(), Some(repository)))
            .collect();
        for repo in self.store.repositories().await? {
            if self.context.check(&repo).is_ok() {
                all.entry(repo).or_insert(None);
            }
        }
        Ok(all)
    }

    /// Returns the store in which archives of this kind are published.
    pub(super) fn store_of(&self, kind: ArchiveKind) -> Store {
        self.catalog.store_of(kind)
    }
}
