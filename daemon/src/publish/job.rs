//! What all steps of one publish share.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::PublishError;
use crate::config::Config;
use crate::metrics::PublishMetrics;
use crate::mirror::{Git, GitCommand};
use crate::store::Lease;

/// One publish: of which mirror, how, and where its temporary files go.
#[derive(Debug)]
pub(super) struct PublishJob<'a> {
    pub(super) git: &'a Git,
    pub(super) config: &'a Config,
    pub(super) mirror: &'a Path,
    /// Removed when the publish ends.
    pub(super) tmp: &'a Path,
    pub(super) metrics: &'a PublishMetrics,
    /// What keeps other daemons from doing the same.
    pub(super) lease: Option<&'a Lease>,
}

impl PublishJob<'_> {
    /// Begins a git command in the mirror.
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

    /// Fails when the daemon stops, or another has taken the publish over; called between the parts of long work.
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
