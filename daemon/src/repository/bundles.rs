//! Bundles for clones that catch up. Each is written once, and kept on disk for a while.
//!
//! A task of its own writes each bundle. All requests for the bundle wait for that task, and none
//! of them can stop it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cachewfs_format::{Digest, ObjectId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::RepositoryError;
use super::contents::MirrorReader;
use super::context::Context;
use super::handle::Repository;
use crate::mirror::{BundleRef, Git, GitError, MirrorError, has_commit, refs_beyond, write_bundle};

/// At most this many bundles are written at once. Each uses all processors for a while.
const MAX_RUNNING: usize = 2;
/// At most this many bundles are kept: a few hours of a busy repository's.
const MAX_KEPT: usize = 64;
/// At most this many bytes of bundles are kept.
const MAX_KEPT_LEN: u64 = 4 << 30;

/// The answer to a clone that wants to catch up from a commit.
#[derive(Debug)]
pub(crate) enum Bundle {
    /// The clone has everything that upstream has.
    UpToDate,
    /// Even after an update, the mirror doesn't have the commit.
    UnknownBase,
    File(BundleFile),
}

/// An open bundle. It stays readable when its file is deleted.
#[derive(Debug)]
pub(crate) struct BundleFile {
    pub(crate) file: File,
    pub(crate) len: u64,
}

type BundleResult = Option<Result<(), RepositoryError>>;

/// The bundles on disk, and the bundles that are being written.
#[derive(Debug)]
pub(crate) struct Bundles {
    context: Arc<Context>,
    reader: Arc<MirrorReader>,
    directory: PathBuf,
    permits: Semaphore,
    running: Mutex<HashMap<Digest, watch::Receiver<BundleResult>>>,
}

/// A bundle to write: of which mirror, from which commit on, with which refs.
#[derive(Debug)]
struct BundleOrder {
    repository: Arc<Repository>,
    base: ObjectId,
    refs: Vec<BundleRef>,
}

impl BundleOrder {
    /// Returns the name of the bundle's file. Equal orders share a file; a ref that moves changes
    /// it.
    fn key(&self) -> Digest {
        let mut key = format!("{}\n{}\n", self.repository.name, self.base).into_bytes();
        key.extend(self.refs.iter().flat_map(BundleRef::to_line));
        Digest::of(&key)
    }
}

impl Bundles {
    /// Creates an empty set. The daemon empties the directory at its start, and the first bundle
    /// creates it.
    pub(crate) fn new(context: Arc<Context>, reader: Arc<MirrorReader>) -> Arc<Self> {
        let directory = context.config.now().data_dir.bundles();
        Arc::new(Self {
            context,
            reader,
            directory,
            permits: Semaphore::new(MAX_RUNNING),
            running: Mutex::default(),
        })
    }

    fn open(&self, key: &Digest) -> Result<Option<BundleFile>, RepositoryError> {
        let path = self.directory.join(key.to_string());
        let open = || -> std::io::Result<BundleFile> {
            let file = File::open(&path)?;
            // Eviction goes by the time of modification: the bundle requested last stays longest.
            file.set_modified(SystemTime::now())?;
            let len = file.metadata()?.len();
            Ok(BundleFile { file, len })
        };
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(io(&path)),
        }
    }

    /// Writes a bundle. Blocks the thread.
    fn write(&self, order: &BundleOrder) -> Result<(), RepositoryError> {
        let (git, directory) = (&self.context.git, &self.directory);
        let limit = self.context.config.now().git.fetch_timeout;
        fs::create_dir_all(directory).map_err(io(directory))?;
        let new = tempfile::NamedTempFile::new_in(directory).map_err(io(directory))?;
        let file = new.reopen().map_err(io(new.path()))?;
        let what = (order.base, &order.refs[..]);
        write_bundle(git, &order.repository.mirror, what, file, limit).map_err(failed)?;
        let path = directory.join(order.key().to_string());
        new.persist(&path).map_err(|error| io(&path)(error.error))?;
        evict(directory, (MAX_KEPT, MAX_KEPT_LEN)).map_err(io(directory))
    }

    /// Returns the bundle that brings a clone at `base` up to date. The clone also has the objects
    /// in `known`. The mirror must be ready.
    ///
    /// Answers [`Bundle::UpToDate`] or [`Bundle::UnknownBase`] only after a check of upstream that
    /// began after this call: the clone may have heard of a push that the mirror hasn't fetched
    /// yet.
    pub(crate) async fn get(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        base: ObjectId,
        known: HashSet<ObjectId>,
    ) -> Result<Bundle, RepositoryError> {
        let known = Arc::new(known);
        let (mut is_checked, mut is_second) = (false, false);
        loop {
            let known = Arc::clone(&known);
            let select = move |git: &Git, mirror: &Path| {
                if !has_commit(git, mirror, base)? {
                    return Ok(None);
                }
                refs_beyond(git, mirror, base, &known).map(Some)
            };
            match self.reader.query(repository, select).await? {
                Some(refs) if !refs.is_empty() => {
                    let repository = Arc::clone(repository);
                    let order = BundleOrder {
                        repository,
                        base,
                        refs,
                    };
                    match self.open_or_write(order).await {
                        // A ref may have been deleted after it was listed. The second try lists
                        // anew.
                        Err(RepositoryError::Mirror(_)) if !is_second => is_second = true,
                        written => return written.map(Bundle::File),
                    }
                    continue;
                }
                Some(_) if is_checked => return Ok(Bundle::UpToDate),
                None if is_checked => return Ok(Bundle::UnknownBase),
                _ => {}
            }
            self.reader.check_upstream(repository).await?;
            is_checked = true;
        }
    }

    async fn open_or_write(
        self: &Arc<Self>,
        order: BundleOrder,
    ) -> Result<BundleFile, RepositoryError> {
        let key = order.key();
        if let Some(file) = self.open(&key)? {
            return Ok(file);
        }
        let mut written = self.begin(key, order);
        let written = written.wait_for(Option::is_some).await;
        let written = written.map_err(|_| RepositoryError::Stopping)?.clone();
        written.unwrap_or(Err(RepositoryError::Stopping))?;
        // Many other bundles were requested within moments, so that this one was evicted.
        self.open(&key)?.ok_or(RepositoryError::Busy)
    }

    /// Starts the task that writes a bundle, unless it runs already. Returns its result to wait
    /// for.
    fn begin(self: &Arc<Self>, key: Digest, order: BundleOrder) -> watch::Receiver<BundleResult> {
        // Look-up and insertion under one lock, so that two requests never start two tasks.
        let lock = |bundles: &Self| {
            let mut running = bundles.running.lock();
            if let Some(written) = running.get(&key) {
                return Err(written.clone());
            }
            let (sender, receiver) = watch::channel(None);
            running.insert(key, receiver.clone());
            Ok((sender, receiver))
        };
        let (sender, receiver) = match lock(self) {
            Ok(begun) => begun,
            Err(running) => return running,
        };
        let bundles = Arc::clone(self);
        self.context.tasks.spawn(async move {
            let outcome = bundles.run(order).await;
            let mut running = bundles.running.lock();
            // Removed before the result is sent: a request that comes later finds the file on disk.
            running.remove(&key);
            drop(running);
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    async fn run(self: &Arc<Self>, order: BundleOrder) -> Result<(), RepositoryError> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| RepositoryError::Stopping)?;
        let bundles = Arc::clone(self);
        let write = move || bundles.write(&order);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|_| RepositoryError::Stopping)?
    }
}

/// Deletes the bundles that were requested longest ago, until at most `count` files and `len` bytes
/// are left. The newest always stays.
fn evict(directory: &Path, (count, len): (usize, u64)) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A bundle that is being written has a name with a dot, and may be renamed at any moment.
        if !entry.file_name().as_encoded_bytes().starts_with(b".")
            && let Ok(metadata) = entry.metadata()
        {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort_unstable_by(|left, right| right.cmp(left));
    let mut sum = 0;
    for (index, (_, file_len, path)) in files.into_iter().enumerate() {
        sum += file_len;
        if index > 0 && (index >= count || sum > len) {
            fs::remove_file(path).ok();
        }
    }
    Ok(())
}

fn failed(error: GitError) -> RepositoryError {
    RepositoryError::Mirror(Arc::new(error.into()))
}

/// Returns a function for `map_err` that makes an error at `path`.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RepositoryError {
    let path = path.to_owned();
    move |source| RepositoryError::Mirror(Arc::new(MirrorError::Io { path, source }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_bundles_requested_longest_ago_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        for age in 0..5_u64 {
            let file = File::create(directory.path().join(age.to_string())).unwrap();
            file.set_len(10).unwrap();
            let time = SystemTime::now() - Duration::from_secs(100 * age);
            file.set_modified(time).unwrap();
        }
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };

        evict(directory.path(), (4, 1000)).unwrap();
        assert_eq!(names(), ["0", "1", "2", "3"]);
        evict(directory.path(), (4, 25)).unwrap();
        assert_eq!(names(), ["0", "1"]);
        evict(directory.path(), (4, 5)).unwrap();
        assert_eq!(names(), ["0"]);
    }
}
