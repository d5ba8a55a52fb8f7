//! The context that all steps of one publish share.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::PublishError;
use crate::config::Config;
use crate::metrics::PublishMetrics;
use crate::mirror::{Git, GitCommand};
use crate::store::Lease;

/// The context of one publish: the mirror, the settings, the temporary directory and the lease.
#[derive(Debug)]
pub(super) struct PublishJob<'a> {
    pub(super) git: &'a Git,
    pub(super) config: &'a Config,
    pub(super) mirror: &'a Path,
    /// Removed when the publish ends.
    pub(super) tmp: &'a Path,
    pub(super) metrics: &'a PublishMetrics,
    /// The lease that keeps other daemons from publishing the same state, if there is one.
    pub(super) lease: Option<&'a Lease>,
}

impl PublishJob<'_> {
    /// Returns a git command that runs in the mirror.
    pub(super) fn git(&self, subcommand: &str) -> GitCommand {
        self.git
            .in_repository(self.mirror, subcommand)
            .time_limit(self.config.git.pack_timeout)
    }

    pub(super) fn tmp_path(&self, name: &str) -> PathBuf {
        self.tmp.join(name)
    }

    pub(super) fn create(&self, name: &str) -> Result<File, PublishError> {
        let path = self.tmp_path(name);
        File::create(&path).map_err(PublishError::at(&path))
    }

    pub(super) fn open(&self, name: &str) -> Result<File, PublishError> {
        let path = self.tmp_path(name);
        File::open(&path).map_err(PublishError::at(&path))
    }

    /// Fails if the daemon is stopping or another daemon has taken the lease over.
    ///
    /// Long work calls it again and again, so it sends no request: it only looks whether the thread
    /// that renews the lease has noticed the loss.
    pub(super) fn check_stop(&self) -> Result<(), PublishError> {
        if self.git.is_stopping() {
            Err(PublishError::Stopping)
        } else if self.lease.is_some_and(Lease::is_known_lost) {
            Err(PublishError::LeaseLost)
        } else {
            Ok(())
        }
    }
}
