//! A file system over a scripted source, without a kernel.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::Archive;
use super::scripted::ScriptedSource;
use crate::cache::Cache;
use crate::fs::Fs;
use crate::options::{Hydrate, MountOptions};
use crate::repository::Repositories;
use crate::segment::{Backend, Segments};
use crate::traffic::Traffic;

/// Returns whether this process can mount. If not, prints that the test is skipped.
pub(crate) fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !can {
        assert!(
            std::env::var_os("CACHEWFS_REQUIRE_FUSE").is_none(),
            "no /dev/fuse, or not root"
        );
        println!("skipped: no /dev/fuse, or not root");
    }
    can
}

/// A test bench: a file system over a scripted source, without a kernel.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) fs: Arc<Fs>,
    pub(crate) repositories: Arc<Repositories>,
    pub(crate) source: Arc<ScriptedSource>,
    cache_dir: TempDir,
}

/// Returns a bench that shows `archive`. Hydration is off, so only reads fetch.
pub(crate) fn bench(archive: Archive) -> Bench {
    bench_with_cache(archive, 1 << 40)
}

/// Returns a bench that shows `archive`, with a cache of at most `max_bytes`.
pub(crate) fn bench_with_cache(archive: Archive, max_bytes: u64) -> Bench {
    let source = ScriptedSource::new(archive.bytes, archive.snapshot, archive.etag);
    bench_of(source, TempDir::new().unwrap(), max_bytes)
}

fn bench_of(source: Arc<ScriptedSource>, cache_dir: TempDir, max_bytes: u64) -> Bench {
    let mut options = MountOptions::new("/mnt".into(), vec!["http://scripted".to_owned()]);
    options.hydrate = Hydrate::Off;
    options.poll_interval = Duration::from_hours(1);
    options.lookup_timeout = Duration::from_millis(500);
    let backend = Backend::new(
        source.clone(),
        Cache::open(cache_dir.path(), max_bytes).unwrap(),
        Arc::new(Traffic::default()),
        Duration::from_secs(2),
    );
    let segments = Arc::new(Segments::new(Arc::new(backend)));
    let repositories = Arc::new(Repositories::new(options, segments));
    Bench {
        fs: Arc::new(Fs::new(Arc::clone(&repositories))),
        repositories,
        source,
        cache_dir,
    }
}

impl Bench {
    /// Returns the bench of a mount that starts after this one has ended, with the same cache and
    /// daemon.
    pub(crate) fn restart(self) -> Self {
        self.repositories.tasks().end();
        let max_bytes = self.repositories.cache().max_bytes();
        bench_of(self.source, self.cache_dir, max_bytes)
    }
}
