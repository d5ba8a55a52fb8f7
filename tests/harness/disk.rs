//! Writes files, measures directories, and mounts filesystems that tests can fill.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Writes a file, and creates its directories.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content.as_ref()).unwrap();
}

/// Returns the sum of the lengths of all files below `directory`, or 0 if it doesn't exist.
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // The daemon removed the entry, or renamed it into place, since the directory was read.
            Err(_) => 0,
        })
        .sum()
}

/// A small tmpfs in a temporary directory. Dropping it unmounts the tmpfs.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a tmpfs of `size`, written as in `mount -t tmpfs -o size=…`.
    ///
    /// Returns `None` if this machine can't mount a tmpfs, and prints that the test is skipped.
    #[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
    pub fn mount(size: &str) -> Option<Self> {
        let directory = TempDir::with_prefix("cachewfs-disk-").unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: this machine can't mount a tmpfs");
        None
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes the size of the disk.
    pub fn resize(&self, size: &str) {
        let resized = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(self.path())
            .status();
        assert!(resized.unwrap().success());
    }

    /// Fills the disk until a write fails.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
        // Single pages fill the space that is too short for another MiB.
        for len in [1 << 20, 4096] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
    }

    /// Removes the file with which [`Self::fill`] filled the disk.
    pub fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still have a file open.
        let unmount = ["-l".as_ref(), self.0.path().as_os_str()];
        Command::new("umount").args(unmount).status().ok();
    }
}
