//! What the task of a repository has done on blocking threads: clones, updates, publishes.

use std::sync::Arc;

use tracing::{info, warn};

use super::registry::{Outcome, Repository};
use super::worker::Worker;
use super::{MirrorState, RepositoryError};
use crate::app::tmp_directory;
use crate::error_chain::chain;
use crate::mirror::{clone_mirror, head_commit, is_mirror, maintain, remove_stale_locks, update};
use crate::publish::Published;

impl Worker {
    /// Clones the mirror, or updates it.
    pub(super) async fn update(&mut self) -> Result<(), RepositoryError> {
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let sweep = std::mem::replace(&mut self.may_have_locks, true);
        let result = tokio::task::spawn_blocking(move || {
            let (config, mirror) = (&registry.config, &repository.mirror);
            if !is_mirror(mirror) {
                repository.change_status(|status| status.state = MirrorState::Cloning);
                let places = (tmp_directory(config), mirror.clone());
                let limit = config.git.clone_timeout;
                // What it has when the daemon stops is lost anyway.
                let git = registry.git.stopped_by(registry.stop.clone());
                clone_mirror(&git, &repository.upstream, (&places.0, &places.1), limit)?;
                info!(repo = %repository.name, "Cloned {}", repository.name);
            } else if sweep {
                remove_stale_locks(mirror).map_err(|source| crate::mirror::MirrorError::Io {
                    path: mirror.clone(),
                    source,
                })?;
            }
            let what = (mirror.as_path(), &config.namespaces[..]);
            update(&registry.git, &repository.upstream, what, &config.git)?;
            let head = head_commit(&registry.git, mirror)?;
            repository.change_status(|status| status.mirror_is_fresh(head));
            Ok(())
        });
        let result = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks = result.is_err();
        result.map_err(|error| RepositoryError::Mirror(Arc::new(error)))
    }

    /// Publishes the mirror, and maintains it.
    pub(super) async fn publish(&mut self) -> Outcome {
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let result = tokio::task::spawn_blocking(move || -> Outcome {
            let Repository {
                name,
                upstream,
                mirror,
                feed,
                ..
            } = &*repository;
            let published: Published =
                registry
                    .publisher
                    .publish(name, (upstream, mirror), feed)
                    .map_err(|error| RepositoryError::Publish(Arc::new(error)))?;
            if let Err(error) = maintain(&registry.git, mirror, &registry.config.git) {
                let error = chain(&error);
                warn!(repo = %name, error, "Maintaining the mirror of {name} failed");
            }
            Ok(published)
        });
        let outcome = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks |= outcome.is_err();
        outcome
    }
}
