//! Freezes processes, as a suspend, a container engine or `systemctl freeze` does.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::wait::wait_until;

/// Where the second version of control groups is mounted: alone, or beside the first version.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A control group whose processes can be frozen. Dropping it thaws them and removes the group.
#[derive(Debug)]
pub struct Freezer {
    root: &'static Path,
    group: PathBuf,
}

impl Freezer {
    /// Creates a group without processes. `name` is its name within this test process.
    ///
    /// If this machine can't have one, prints that the test is skipped and returns `None`, or
    /// panics if `CACHEWFS_REQUIRE_NETNS` is set.
    #[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
    pub fn create(name: &str) -> Option<Self> {
        let mut roots = ROOTS.iter().map(Path::new);
        let root = roots.find(|root| root.join("cgroup.controllers").exists());
        let group = root.map(|root| root.join(format!("cachewfs-{}-{name}", std::process::id())));
        let created = group.as_ref().is_some_and(|group| {
            fs::create_dir(group).is_ok() && group.join("cgroup.freeze").exists()
        });
        if let (Some(root), Some(group), true) = (root, group, created) {
            return Some(Self { root, group });
        }
        assert!(
            std::env::var_os("CACHEWFS_REQUIRE_NETNS").is_none(),
            "no control groups"
        );
        println!("skipped: no control groups");
        None
    }

    /// Moves a process into the group, with all its threads.
    pub fn add(&self, pid: u32) {
        write(&self.group.join("cgroup.procs"), &pid.to_string());
    }

    /// Starts to freeze the processes. A thread that waits for an answer of a mount freezes later.
    pub fn start_freezing(&self) {
        write(&self.group.join("cgroup.freeze"), "1");
    }

    /// Freezes the processes, and waits until all are frozen.
    pub fn freeze(&self) {
        self.start_freezing();
        wait_until("the processes are frozen", || self.is_frozen());
    }

    /// Returns whether all processes of the group are frozen.
    pub fn is_frozen(&self) -> bool {
        let events = fs::read_to_string(self.group.join("cgroup.events")).unwrap();
        events.lines().any(|line| line == "frozen 1")
    }

    /// Lets the processes go on.
    pub fn thaw(&self) {
        write(&self.group.join("cgroup.freeze"), "0");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let pids = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            // Fails if the process has just ended.
            if let Ok(mut procs) = fs::File::options()
                .write(true)
                .open(self.root.join("cgroup.procs"))
            {
                procs.write_all(pid.as_bytes()).ok();
            }
        }
        fs::remove_dir(&self.group).ok();
    }
}

fn write(path: &Path, text: &str) {
    let file = fs::File::options().write(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
