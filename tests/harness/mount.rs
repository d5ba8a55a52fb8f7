//! A mount that a `cachewfs` process in the foreground serves.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Process, run, wrapped};
use crate::wait::wait_until;

/// A running `cachewfs mount --foreground`. Dropping it unmounts, also when a test panics.
#[derive(Debug)]
pub struct MountProcess {
    process: Process,
    /// The command line in front of `cachewfs`; empty if it is started directly.
    wrapper: Vec<String>,
    /// The mount point.
    pub point: PathBuf,
    log: PathBuf,
}

impl MountProcess {
    /// Mounts `url` at `directory/mnt`, with the cache beside it. Returns when the mount answers.
    pub fn start(directory: &Path, url: &str, options: &str) -> Self {
        Self::start_with(directory, (&[], &[url]), options)
    }

    /// Mounts as [`Self::start`] does. `wrapper` is a command that executes the program, such as
    /// `ip netns exec NAME`.
    pub fn start_within(wrapper: &[&str], directory: &Path, (url, options): (&str, &str)) -> Self {
        Self::start_with(directory, (wrapper, &[url]), options)
    }

    /// Mounts with an embedded daemon, which mirrors the repositories below `upstreams` as
    /// `local/…`.
    pub fn start_local(directory: &Path, upstreams: &Path) -> Self {
        let data = directory.join("data").display().to_string();
        let upstream = format!("local=file://{}", upstreams.display());
        Self::start_with(
            directory,
            (&[], &["--local", &data, "--upstream", &upstream]),
            "hydrate=off",
        )
    }

    fn start_with(
        directory: &Path,
        (wrapper, arguments): (&[&str], &[&str]),
        options: &str,
    ) -> Self {
        let point = directory.join("mnt");
        fs::create_dir_all(&point).unwrap();
        // A first lookup may take long on a busy machine. If an option comes twice, the later one
        // counts: so `options` can change these defaults.
        let options = format!(
            "cache_dir={},poll_interval=200ms,lookup_timeout=30s,{options}",
            directory.join("cache").display()
        );
        let log = directory.join("mount.log");
        let output = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = wrapped(wrapper, "cachewfs");
        command
            .args(["mount", "--foreground", "-o", &options])
            .args(arguments)
            .arg(&point)
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut mount = Self {
            process: Process::spawn(&mut command),
            wrapper: wrapper.iter().map(|&word| word.to_owned()).collect(),
            point,
            log,
        };
        wait_until("the mount answers", || {
            assert!(
                !mount.process.has_ended(),
                "the mount ended; its log: {}",
                mount.log()
            );
            mount.try_status().is_some()
        });
        mount
    }

    /// Returns the id of the mount's process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets a new process take the mount over. Returns when the old one has ended.
    pub fn replace(&mut self) {
        let output = fs::File::options().append(true).open(&self.log).unwrap();
        let wrapper: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        let mut command = wrapped(&wrapper, "cachewfs");
        command
            .args(["mount", "--foreground", "--replace"])
            .arg(&self.point)
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut old = std::mem::replace(&mut self.process, Process::spawn(&mut command));
        wait_until("the new process serves the mount", || {
            assert!(!self.process.has_ended(), "it ended: {}", self.log());
            let status = self.try_status();
            status.is_some_and(|status| status["pid"] == self.process.id())
        });
        assert_eq!(old.wait(), Some(0), "{}", self.log());
    }

    /// Returns the directory of a repository in the mount.
    pub fn repo(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Looks at the files at the top of a repository, so that only their bytes are missing. Returns
    /// its directory.
    pub fn look(&self, name: &str) -> PathBuf {
        let repo = self.repo(name);
        for entry in fs::read_dir(&repo).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
        repo
    }

    /// Returns the directory with the packs of a repository.
    pub fn packs(&self, name: &str) -> PathBuf {
        self.point.join(format!("{name}.git/objects/pack"))
    }

    /// Runs `cachewfs` for this mount, and returns its output. Panics with its standard error if it
    /// fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let point = self.point.display().to_string();
        let output = run(&[arguments, &["--mount", &point]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cachewfs {arguments:?} failed: {stderr}"
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns what `cachewfs status --json` prints of this mount.
    pub fn status(&self) -> Value {
        self.try_status()
            .unwrap_or_else(|| panic!("the mount has no status; its log: {}", self.log()))
    }

    fn try_status(&self) -> Option<Value> {
        let point = self.point.display().to_string();
        let output = run(&["status", "--json", "--mount", &point]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap()["mounts"][0].take())
    }

    /// Returns a counter of the mount's traffic, for example `fetched_bytes`.
    pub fn traffic(&self, count: &str) -> u64 {
        self.status()["traffic"][count].as_u64().unwrap()
    }

    /// Returns the mount's log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns all texts in which another user could find a secret of the mount: its log, its
    /// status, and what `/proc` shows of its process.
    pub fn texts_visible_to_others(&self) -> Vec<String> {
        let from_proc = ["cmdline", "environ", "mountinfo"].map(|file| {
            let bytes = fs::read(format!("/proc/{}/{file}", self.process.id())).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let from_mount = [self.log(), self.status().to_string()];
        from_proc.into_iter().chain(from_mount).collect()
    }

    /// Returns whether the mount is in the kernel's mount table.
    pub fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(&format!(" {} ", self.point.display()))
    }

    /// Ends the process with SIGKILL. Dropping `self` then unmounts the mount without a process.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Ends the process with SIGTERM. Returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Waits until the process has ended. Returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait()
    }
}

impl Drop for MountProcess {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        wait_until("the mount's process has ended", || self.process.has_ended());
        if self.is_mounted() {
            // A process that SIGKILL ended has not unmounted.
            rustix::mount::unmount(&self.point, UnmountFlags::DETACH).ok();
        }
    }
}
