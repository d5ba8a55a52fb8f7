//! A place for one test: an upstream, a daemon, mounts.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{DaemonProcess, GitRepo, MountProcess, git};

/// Directories for one test, gone when it ends.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            directory: tempfile::Builder::new()
                .prefix("cachewfs-")
                .tempdir()
                .unwrap(),
        }
    }
}

impl Site {
    /// Below this everything is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the upstream repositories are.
    pub fn upstreams(&self) -> PathBuf {
        self.path().join("upstreams")
    }

    /// A new upstream repository, `local/<name>` for the daemon.
    pub fn repo(&self, name: &str) -> GitRepo {
        GitRepo::create(
            self.path().join("work").join(name),
            self.upstreams().join(name),
        )
    }

    /// A repository with some history and odd files, pushed.
    pub fn repo_with_history(&self, name: &str) -> GitRepo {
        let mut repo = self.repo(name);
        repo.add_odd_files();
        repo.add_history(40);
        repo.push();
        repo
    }

    /// A plain clone of an upstream, by git.
    pub fn plain_clone(&self, repo: &GitRepo, name: &str) -> PathBuf {
        let clone = self.path().join("plain").join(name);
        let upstream = repo.upstream.display().to_string();
        let target = clone.display().to_string();
        let arguments = ["clone", "-q", "--no-local", &upstream, &target];
        git(self.path(), &arguments);
        clone
    }

    /// A daemon.
    pub fn daemon(&self) -> DaemonProcess {
        DaemonProcess::start(&self.path().join("daemon"), &self.upstreams())
    }

    /// A daemon with more tables in its configuration.
    pub fn daemon_with_tables(&self, tables: &str) -> DaemonProcess {
        DaemonProcess::start_with_tables(&self.path().join("daemon"), &self.upstreams(), tables)
    }

    /// A mount that fetches nothing before it is read.
    pub fn mount(&self, url: &str) -> MountProcess {
        self.mount_with_options(url, "hydrate=off")
    }

    /// A mount with options.
    pub fn mount_with_options(&self, url: &str, options: &str) -> MountProcess {
        MountProcess::start(&self.path().join("workstation"), url, options)
    }
}
