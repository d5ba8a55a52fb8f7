//! A filesystem of its own, with little room.

use std::path::Path;
use std::process::Command;

/// A small filesystem, gone when this is dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    #[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: no tmpfs can be mounted here");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = ["-l".as_ref(), self.0.path().as_os_str()];
        Command::new("umount").args(unmount).status().ok();
    }
}
