//! Measures how much disk mirrors and store take.
//!
//! A scan looks at every file, so it takes long on a large store. A task scans from time to time,
//! and readers get the result of the last scan.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::base::{DataDir, Volume};
use crate::config::Config;

/// How many times the duration of a scan passes before the next one, within the two limits below.
/// So scans take at most 2 % of the time.
const PAUSE_PER_SCAN: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The disk space that mirrors and store take, in bytes of allocated blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUsed {
    pub(crate) mirrors: u64,
    pub(crate) store: u64,
}

/// The result of the last scan of the daemon's directories.
#[derive(Debug)]
pub(crate) struct DiskUsage {
    data_dir: DataDir,
    store: PathBuf,
    used: Mutex<Option<DiskUsed>>,
}

impl DiskUsage {
    pub(crate) fn of(config: &Config) -> Self {
        let data_dir = config.data_dir.clone();
        let (store, _) = config.store.directories(&data_dir);
        Self {
            data_dir,
            store,
            used: Mutex::default(),
        }
    }

    /// Returns the result of the last scan, or `None` before the first scan has ended.
    pub(crate) fn used(&self) -> Option<DiskUsed> {
        *self.used.lock()
    }

    /// Returns the free space on the filesystem of the data directory, in bytes, as an unprivileged
    /// process sees it. Returns `None` if the filesystem doesn't tell.
    pub(crate) fn free(&self) -> Option<u64> {
        Volume::of(self.data_dir.path()).map(|volume| volume.free)
    }

    /// Scans again and again until the daemon stops.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let (this, stopping) = (Arc::clone(&self), stop.clone());
            let began = Instant::now();
            let scan = tokio::task::spawn_blocking(move || this.scan(&stopping));
            if scan.await.is_err() {
                return;
            }
            let pause = began.elapsed().saturating_mul(PAUSE_PER_SCAN);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
            }
        }
    }

    fn scan(&self, stop: &CancellationToken) {
        let mirrors = sum(&self.data_dir.mirrors(), stop);
        if let (Some(mirrors), Some(store)) = (mirrors, sum(&self.store, stop)) {
            let used = Some(DiskUsed { mirrors, store });
            *self.used.lock() = used;
        }
    }
}

/// Returns the bytes on disk of everything below `directory`, or `None` if the daemon stops. Files
/// that go away during the scan count nothing.
fn sum(directory: &Path, stop: &CancellationToken) -> Option<u64> {
    let mut total = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        if stop.is_cancelled() {
            return None;
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            // Blocks, not lengths: files have holes. stat(2) always counts in units of 512 bytes.
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_sums_mirrors_and_store() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, len: usize| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut fs::File::create(path).unwrap(), &vec![7; len]).unwrap();
        };
        write("mirrors/h/a", 100_000);
        write("store/x", 300_000);
        let usage = DiskUsage::of(&Config {
            data_dir: directory.path().to_owned().into(),
            ..Config::default()
        });
        assert_eq!(usage.used(), None);

        usage.scan(&CancellationToken::new());

        let used = usage.used().unwrap();
        assert!((100_000..200_000).contains(&used.mirrors), "{used:?}");
        assert!((300_000..400_000).contains(&used.store), "{used:?}");
        assert!(usage.free().unwrap() > 0);
    }
}
