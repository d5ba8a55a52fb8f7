//! How much disk mirrors and store take. Looking takes as long as they have files, so it is done from
//! time to time, and what was seen last is kept.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::volume::Volume;

/// Looking takes one part in so many of the time, but for the shortest and the longest pause.
const SHARE: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What is taken, in bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) mirrors: u64,
    pub(crate) store: u64,
}

/// What was seen last.
#[derive(Debug)]
pub(crate) struct DiskUsage {
    data_dir: PathBuf,
    store: PathBuf,
    used: Mutex<Option<Used>>,
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

    /// `None` until all was looked at once.
    pub(crate) fn used(&self) -> Option<Used> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a process without privileges may still write, in bytes.
    pub(crate) fn free(&self) -> Option<u64> {
        Volume::of(&self.data_dir).map(|volume| volume.free)
    }

    /// Looks again and again, until the daemon stops.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let (this, stopping) = (Arc::clone(&self), stop.clone());
            let began = Instant::now();
            let look = tokio::task::spawn_blocking(move || this.look(&stopping));
            if look.await.is_err() {
                return;
            }
            let pause = began.elapsed().saturating_mul(SHARE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
            }
        }
    }

    fn look(&self, stop: &CancellationToken) {
        let mirrors = sum(&self.data_dir.join("mirrors"), stop);
        if let (Some(mirrors), Some(store)) = (mirrors, sum(&self.store, stop)) {
            let used = Some(Used { mirrors, store });
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
        }
    }
}

/// What everything below `directory` takes; what goes away meanwhile counts nothing. `None` if the
/// daemon stops.
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
    fn sums_what_is_below() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, len: usize| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut fs::File::create(path).unwrap(), &vec![7; len]).unwrap();
        };
        write("mirrors/h/a", 100_000);
        write("store/x", 300_000);
        let usage = DiskUsage::of(&Config {
            data_dir: directory.path().to_owned(),
            ..Config::default()
        });
        assert_eq!(usage.used(), None);

        usage.look(&CancellationToken::new());

        let used = usage.used().unwrap();
        assert!((100_000..200_000).contains(&used.mirrors), "{used:?}");
        assert!((300_000..400_000).contains(&used.store), "{used:?}");
        assert!(usage.free().unwrap() > 0);
    }
}
