//! The directories of one test, and short ways to start an upstream, a daemon and mounts in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{DaemonProcess, Dice, GitRepo, MountProcess, binary, git};

/// Unmounts the mounts of other tests in this mount namespace, and executes the command line.
const LEAVE_OTHERS: &str = "awk -v own=\"$0/\" \
    '$3 == \"fuse.cachewfs\" && index($2, own) != 1 { print $2 }' /proc/self/mounts | \
    while read -r point; do umount --lazy \"$point\"; done; exec \"$@\"";

/// A temporary directory for one test. Dropping it removes everything in it.
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
    /// Returns the directory that has all files of the test.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the directory of the upstream repositories.
    pub fn upstreams(&self) -> PathBuf {
        self.path().join("upstreams")
    }

    /// Creates an empty upstream repository, which the daemon mirrors as `local/<name>`.
    pub fn repo(&self, name: &str) -> GitRepo {
        GitRepo::create(
            self.path().join("work").join(name),
            self.upstreams().join(name),
        )
    }

    /// Creates an upstream repository with 40 commits and with unusual files.
    pub fn repo_with_history(&self, name: &str) -> GitRepo {
        let mut repo = self.repo(name);
        repo.add_odd_files();
        repo.add_history(40);
        repo.push();
        repo
    }

    /// Creates and pushes an upstream with `count` different files `0`, `1`, … of `len` bytes.
    pub fn repo_of_files(&self, name: &str, (count, len): (usize, usize)) -> GitRepo {
        let mut repo = self.repo(name);
        let mut dice = Dice::new(1);
        for number in 0..count {
            let noise = dice.noise(len.min(64 << 10));
            let content: Vec<u8> = noise.into_iter().cycle().take(len).collect();
            repo.write(number.to_string(), &content);
        }
        repo.commit("Add files");
        repo.push();
        repo
    }

    /// Clones an upstream with git, without cachewfs.
    pub fn plain_clone(&self, repo: &GitRepo, name: &str) -> PathBuf {
        let clone = self.path().join("plain").join(name);
        let upstream = repo.upstream.display().to_string();
        let target = clone.display().to_string();
        let arguments = ["clone", "-q", "--no-local", &upstream, &target];
        git(self.path(), &arguments);
        clone
    }

    /// Starts a daemon.
    pub fn daemon(&self) -> DaemonProcess {
        DaemonProcess::start(&self.path().join("daemon"), &self.upstreams())
    }

    /// Starts a daemon with `tables` at the end of its configuration file.
    pub fn daemon_with_tables(&self, tables: &str) -> DaemonProcess {
        DaemonProcess::start_with_tables(&self.path().join("daemon"), &self.upstreams(), tables)
    }

    /// Mounts, without hydration: nothing is fetched before it is read.
    pub fn mount(&self, url: &str) -> MountProcess {
        self.mount_with_options(url, "hydrate=off")
    }

    /// Mounts with `options`, as for `mount -o`.
    pub fn mount_with_options(&self, url: &str, options: &str) -> MountProcess {
        MountProcess::start(&self.path().join("workstation"), url, options)
    }
    /// Returns a command that runs `cachewfs` in `directory`, where it sees the mounts of this test
    /// and no others.
    pub fn cli_with_own_mounts(&self, directory: &Path) -> Command {
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                LEAVE_OTHERS,
            ])
            .arg(self.path())
            .arg(binary("cachewfs"))
            .current_dir(directory)
            .stdin(Stdio::null());
        command
    }
}
