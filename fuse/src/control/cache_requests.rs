//! Answers requests about what a mount has and lacks: files to fetch, bytes to check or to drop,
//! and refs to wait for.

use std::sync::Arc;

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use cachewfs_format::api::EnsureRefsRequest;
use tokio::sync::watch;

use super::protocol::{ControlAnswer, PathReader, Progress};
use super::server::{ControlConnection, send_progress};
use crate::repository::{CheckedBytes, fetch_paths};
use crate::restore::wait_for;

impl ControlConnection {
    /// Fetches some files of a repository into the cache.
    pub(super) async fn fetch_paths(
        &self,
        repo: &RepoName,
        (paths, reader): (&[String], PathReader),
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        let repository = self.resolve(repo, progress).await?;
        let traffic = self.repositories.traffic();
        let before = traffic.report_of(repo).fetched_bytes;
        let text = format!("fetching files of {repo} into the cache");
        send_progress(progress, &text, 0, 0);
        let generation = repository.view().generation;
        let fetched = fetch_paths(&generation, paths, reader).await;
        fetched.map_err(|error| chain(&error))?;
        let after = traffic.report_of(repo).fetched_bytes;
        Ok(ControlAnswer::Fetched {
            fetched_bytes: after.saturating_sub(before),
        })
    }

    /// Compares what the cache has of a repository with its checksums.
    pub(super) async fn check(
        &self,
        repo: &RepoName,
        progress: watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        let repository = self.resolve(repo, &progress).await?;
        let text = format!("checking what the cache has of {repo}");
        let on_progress = move |done, total| send_progress(&progress, &text, done, total);
        let work = move || repository.check_cached(on_progress);
        let checked = tokio::task::spawn_blocking(work).await;
        let CheckedBytes {
            checked_bytes,
            damaged,
        } = checked.map_err(|error| error.to_string())?;
        Ok(ControlAnswer::Checked {
            checked_bytes,
            damaged,
        })
    }

    /// Waits until the daemon has refs and commits, and shows the newest snapshot.
    pub(super) async fn await_refs(
        &self,
        repo: &RepoName,
        wanted: &EnsureRefsRequest,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        let waiting = |message: &str| {
            let text = format!("waiting for the daemon: {message}");
            send_progress(progress, &text, 0, 0);
        };
        waiting("it looks for the refs");
        let arrived = wait_for(repo, wanted, (self.repositories.source(), &waiting));
        arrived.await.map_err(|error| chain(&error))?;
        let repository = self.resolve(repo, progress).await?;
        let outcome = self.repositories.catch_up(&repository).await;
        outcome.map_err(|error| chain(&error))?;
        Ok(self.resolved(&repository))
    }

    /// Drops what the cache has of a repository.
    pub(super) async fn forget(
        &self,
        repo: &RepoName,
        force: bool,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        let failed =
            |error: &dyn std::error::Error| format!("can't forget {repo}: {}", chain(error));
        let cache = self.repositories.cache();
        let pinned = cache.pinned_repos().map_err(|error| failed(&error))?;
        if pinned.contains(repo) {
            if !force {
                return Err(format!(
                    "can't forget {repo}: it is pinned, and --force unpins it"
                ));
            }
            cache.unpin(repo).map_err(|error| failed(&error))?;
        }
        let repository = self.resolve(repo, progress).await?;
        let repositories = Arc::clone(&self.repositories);
        let work = tokio::task::spawn_blocking(move || repositories.forget(&repository));
        let freed = work.await.map_err(|error| error.to_string())?;
        let freed_bytes = freed.map_err(|error| failed(&error))?;
        Ok(ControlAnswer::Freed { freed_bytes })
    }
}
