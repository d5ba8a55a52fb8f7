//! What is on disk.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The bytes of all files below a directory; 0 if there is none.
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Renamed into place meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// A filesystem of its own in memory, with little room; gone when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// So large as `mount -t tmpfs -o size=` has it. `None` where none can be mounted, and says so.
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
        println!("skipped: no tmpfs can be mounted here");
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
        for len in [1 << 20, 4096] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = ["-l".as_ref(), self.0.path().as_os_str()];
        Command::new("umount").args(unmount).status().ok();
    }
}
