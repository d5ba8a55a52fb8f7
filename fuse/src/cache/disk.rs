//! The cache's directory: opens it, stores and finds segments, evicts and pins them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cachewfs_base::seconds_since_epoch;
use cachewfs_format::limits::MAX_TABLE_LEN;
use cachewfs_format::{RepoName, SegmentId, SegmentTable};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::sync::Notify;
use tracing::warn;

use super::evict::CachedSegment;
use super::open_files::OpenSegmentFiles;
use super::{
    CacheFailures, KeptSnapshots, MarkedBytes, Marks, SegmentFile, evict, kept, pins, staged,
};

/// Bytes at the start of a meta file that hold the length of the table's frame.
const META_HEADER_LEN: usize = 8;

/// The share of the limit that this process writes before it counts the cache again. Other mounts
/// may write to the same cache, and this process doesn't see that.
const RECOUNT_SHARE: u64 = 64;
/// How long after its last use a segment counts as just used. If eviction takes such a segment, the
/// cache is smaller than what is read at once.
pub(crate) const RECENT_USE: Duration = Duration::from_mins(1);
/// At least this many bytes are written before the cache is counted again.
const MIN_RECOUNT_BYTES: u64 = 1 << 20;

/// The cached segments of all repositories on this machine.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    max_bytes: u64,
    /// An estimate of the bytes of disk in use: the last count, and what this process has written
    /// since.
    used_bytes: AtomicU64,
    /// The bytes that this process has written since the last count.
    uncounted_bytes: AtomicU64,
    pinned: Mutex<HashSet<SegmentId>>,
    /// When eviction last took a segment that had just been used, in seconds since the epoch, or 0
    /// if it never did.
    short_at: AtomicU64,
    grew: Notify,
    open_files: OpenSegmentFiles,
    failures: CacheFailures,
}

impl Cache {
    /// Opens the cache at `directory`, and creates it if it doesn't exist.
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let root = directory.join("v1");
        // The cache holds content of private repositories, so other users must not read it.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        check_access(directory, &root)?;
        let pinned = Mutex::new(pins::read_all(&root)?);
        let used_bytes = evict::total(&evict::scan(&root)?);
        let cache = Self {
            root,
            max_bytes,
            used_bytes: AtomicU64::new(0),
            uncounted_bytes: AtomicU64::new(0),
            pinned,
            short_at: AtomicU64::new(0),
            grew: Notify::new(),
            open_files: OpenSegmentFiles::new(),
            failures: CacheFailures::default(),
        };
        // The limit may be lower than at the last start: then this wakes eviction.
        cache.count_stored(used_bytes);
        Ok(cache)
    }

    /// Returns an estimate of the bytes of disk in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Returns whether the cache exceeded its limit when it was counted last, or has since.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.used_bytes() > self.max_bytes
    }

    /// Returns the limit of the cache in bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Returns when eviction last took a segment that had been used within [`RECENT_USE`], in
    /// seconds since the epoch, or `None` if it never did.
    pub(crate) fn short_at(&self) -> Option<u64> {
        let at = self.short_at.load(Ordering::Relaxed);
        (at > 0).then_some(at)
    }

    /// Returns the failure of the cache's disk that lasts at present.
    pub(crate) fn failures(&self) -> &CacheFailures {
        &self.failures
    }

    /// Returns the table of a segment, or `None` if it isn't cached or is damaged.
    pub(crate) fn table(&self, id: SegmentId) -> Option<SegmentTable> {
        let frame = self.with_free_files(|| {
            let mut meta = File::open(self.path(id, "meta"))?;
            let len = read_header(&mut meta)?;
            // The length comes from a file that may be damaged: check it before reserving memory.
            if len > u64::from(MAX_TABLE_LEN) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut frame = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            meta.read_exact(&mut frame)?;
            Ok(frame)
        });
        SegmentTable::decode(id, &frame.ok()?).ok()
    }

    /// Does `work`, which opens files. If the process has too many open, closes those of segments
    /// that no reader is using, and does `work` again.
    fn with_free_files<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        work().or_else(|error| {
            // The limit of open segments leaves files for connections and open directories, but
            // these may need more.
            let limits = [Errno::MFILE, Errno::NFILE];
            let is_limit =
                Errno::from_io_error(&error).is_some_and(|errno| limits.contains(&errno));
            if is_limit && self.open_files.close_all() {
                work()
            } else {
                Err(error)
            }
        })
    }

    /// Stores the frame of a segment's table, without any chunk marked as cached.
    pub(crate) fn store_table(&self, id: SegmentId, frame: &[u8]) -> io::Result<()> {
        self.with_free_files(|| self.write_table(id, frame))
    }

    fn write_table(&self, id: SegmentId, frame: &[u8]) -> io::Result<()> {
        let path = self.path(id, "meta");
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory)?;
        let staged = staged::create(directory)?;
        staged
            .as_file()
            .write_all_at(&(frame.len() as u64).to_le_bytes(), 0)?;
        staged
            .as_file()
            .write_all_at(frame, META_HEADER_LEN as u64)?;
        // Another process may have stored the table first. Its file may have marks already, so it
        // must not be replaced.
        match staged.persist_noclobber(&path) {
            Err(error) if self.table(id).is_none() => {
                // The file in the way is damaged. Replacing it also drops its marks.
                error.file.persist(&path).map_err(|error| error.error)?;
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// Opens the content of a segment whose table is stored. Keeps it open while it is among the
    /// segments that were used last.
    ///
    /// `len` is how many bytes of the content to keep.
    pub(crate) fn open_segment(
        &self,
        id: SegmentId,
        table: &SegmentTable,
        table_len: u32,
        len: u64,
    ) -> io::Result<Arc<SegmentFile>> {
        let open = || self.open_files_of(id, table, table_len, len);
        let file = Arc::new(self.with_free_files(open)?);
        self.keep_open(&file);
        Ok(file)
    }

    fn open_files_of(
        &self,
        id: SegmentId,
        table: &SegmentTable,
        table_len: u32,
        len: u64,
    ) -> io::Result<SegmentFile> {
        let meta = File::options()
            .read(true)
            .write(true)
            .open(self.path(id, "meta"))?;
        let marks_at = META_HEADER_LEN as u64 + u64::from(table_len);
        SegmentFile::open(&self.path(id, "data"), meta, marks_at, table, len)
    }

    /// Keeps the files of a segment open, as those that were used last.
    pub(crate) fn keep_open(&self, file: &Arc<SegmentFile>) {
        self.open_files.keep(file);
    }

    /// Closes the files of a segment as soon as no reader uses them.
    pub(crate) fn close(&self, file: &Arc<SegmentFile>) {
        self.open_files.close(file);
    }

    /// Returns the bytes of the chunks that are marked as cached. `count` turns marks into bytes;
    /// it is called only if the marks have changed since the last call with this `known`.
    pub(crate) fn marked_bytes(
        &self,
        id: SegmentId,
        known: &MarkedBytes,
        count: impl Fn(&Marks) -> u64,
    ) -> u64 {
        let read = || {
            let mut meta = File::open(self.path(id, "meta"))?;
            known.of(&meta.metadata()?, || {
                let marks_at = (META_HEADER_LEN as u64).saturating_add(read_header(&mut meta)?);
                Ok(count(&Marks::read(&meta, marks_at, usize::MAX)?))
            })
        };
        // Most often there is no such file: no chunk of the segment is cached.
        self.with_free_files(read).unwrap_or(0)
    }

    /// Records when a segment was last used. Eviction goes by this time.
    pub(crate) fn touch(&self, id: SegmentId, used_at: SystemTime) {
        let touched = File::options()
            .write(true)
            .open(self.path(id, "meta"))
            .and_then(|meta| meta.set_modified(used_at));
        // A failure does no harm: the segment only looks older than it is.
        touched.ok();
    }

    /// Counts stored bytes, and wakes eviction if the cache may be over its limit.
    pub(crate) fn count_stored(&self, bytes: u64) {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let uncounted = self.uncounted_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_over = used.saturating_add(bytes) > self.max_bytes;
        if is_over || uncounted.saturating_add(bytes) >= self.recount_after() {
            // `notify_one` leaves a permit if eviction is running now, so the wake-up isn't lost.
            self.grew.notify_one();
        }
    }

    fn recount_after(&self) -> u64 {
        (self.max_bytes / RECOUNT_SHARE).max(MIN_RECOUNT_BYTES)
    }

    /// Waits until the cache may be over its limit.
    pub(crate) async fn grew(&self) {
        self.grew.notified().await;
    }

    /// Counts the cache. If it is over its limit, evicts the least recently used segments, except
    /// those `in_use`.
    ///
    /// Returns the ids of the evicted segments. Looks at all files of the cache.
    pub(crate) fn evict(&self, in_use: &HashSet<SegmentId>) -> io::Result<HashSet<SegmentId>> {
        // Two mounts that evict at the same time would each evict enough for both. And a segment
        // that a mount pins must not be evicted by another one that has read the pins before.
        let lock = self.lock_file()?;
        lock.lock()?;
        self.uncounted_bytes.store(0, Ordering::Relaxed);
        let files = self.scan()?;
        let used = evict::total(&files);
        if used <= self.max_bytes {
            self.used_bytes.store(used, Ordering::Relaxed);
            return Ok(HashSet::new());
        }
        // Another mount may have pinned segments since, so the pins are read again from disk. The
        // mutex keeps them from overwriting what a concurrent `pin` of this process adds.
        let mut pinned = self.pinned.lock();
        *pinned = pins::read_all(&self.root)?;
        // A mount that starts without a daemon needs these segments. They may take a tenth of the
        // cache, so that they leave room for everything else.
        let kept = evict::spare(&files, self.max_bytes / 10, kept::needed(&self.root));
        let spared = pinned.union(&kept).chain(in_use).copied().collect();
        let victims = evict::choose(files, self.max_bytes, &spared);
        drop(pinned);
        self.remove_files(&victims)?;
        let freed = evict::total(&victims);
        self.used_bytes
            .store(used.saturating_sub(freed), Ordering::Relaxed);
        let is_recent = |age: Duration| age < RECENT_USE;
        if victims
            .iter()
            .any(|victim| victim.used_at.elapsed().is_ok_and(is_recent))
        {
            self.short_at
                .store(seconds_since_epoch(), Ordering::Relaxed);
        }
        Ok(victims.into_iter().map(|victim| victim.id).collect())
    }

    /// Drops `segments`, except those that are pinned. Returns the dropped ones, and how many bytes
    /// of disk they took. Looks at all files of the cache.
    pub(crate) fn drop_segments(
        &self,
        segments: &HashSet<SegmentId>,
    ) -> io::Result<(HashSet<SegmentId>, u64)> {
        let lock = self.lock_file()?;
        lock.lock()?;
        let pinned = pins::read_all(&self.root)?;
        let mut files = self.scan()?;
        files.retain(|file| segments.contains(&file.id) && !pinned.contains(&file.id));
        self.remove_files(&files)?;
        let freed = evict::total(&files);
        // An estimate: other mounts may share the cache. The next count corrects it.
        let less = |used: u64| Some(used.saturating_sub(freed));
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok();
        Ok((files.into_iter().map(|file| file.id).collect(), freed))
    }

    fn remove_files(&self, segments: &[CachedSegment]) -> io::Result<()> {
        for segment in segments {
            // A process that has the files open goes on reading them. The kernel frees the space
            // when it closes them.
            //
            // The meta file goes first: without marks, no process trusts the data file. If the
            // process ends between the two, the data file is reused when the segment comes back, or
            // evicted before all others.
            fs::remove_file(self.path(segment.id, "meta")).or_else(ignore_absent)?;
            fs::remove_file(self.path(segment.id, "data")).or_else(ignore_absent)?;
        }
        Ok(())
    }

    /// Lists the segments on disk. A time of use that lies in the future becomes the present.
    fn scan(&self) -> io::Result<Vec<CachedSegment>> {
        let mut files = evict::scan(&self.root)?;
        // The clock was behind or ahead when they were used. Without this, all that is used from
        // now on would look older than they do, and be evicted while it is needed.
        let now = SystemTime::now();
        for file in files.iter_mut().filter(|file| file.used_at > now) {
            file.used_at = now;
            self.touch(file.id, now);
        }
        Ok(files)
    }

    /// Opens the file that a mount locks while it evicts or pins. Closing it unlocks it.
    fn lock_file(&self) -> io::Result<File> {
        let path = self.root.join("lock");
        File::options().create(true).append(true).open(path)
    }

    /// Returns how many bytes of disk `segments` of `repo` may take.
    ///
    /// This is the cache's limit without the bytes that pins of other repositories take. Looks at
    /// all files of the cache.
    pub(crate) fn room_for(
        &self,
        repo: &RepoName,
        segments: &HashSet<SegmentId>,
    ) -> io::Result<u64> {
        let others = pins::read_others(&self.root, repo)?;
        // A segment that both pins need takes its bytes once: it counts with `segments`.
        let is_others = |id| others.contains(&id) && !segments.contains(&id);
        let files = evict::scan(&self.root)?;
        let taken = files.iter().filter(|file| is_others(file.id));
        let taken: u64 = taken.map(|file| file.bytes).sum();
        Ok(self.max_bytes.saturating_sub(taken))
    }

    /// Pins `repo`: from now on, `segments` are never evicted.
    pub(crate) fn pin(&self, repo: &RepoName, segments: &[SegmentId]) -> io::Result<()> {
        let in_cache = |error: io::Error| {
            let text = format!("can't write to {}: {error}", self.root.display());
            io::Error::new(error.kind(), text)
        };
        let lock = self.lock_file().map_err(in_cache)?;
        lock.lock()?;
        // The file first: eviction reads the pins from disk, also in other mounts.
        pins::write(&self.root, repo, segments).map_err(in_cache)?;
        self.pinned.lock().extend(segments);
        Ok(())
    }

    /// Unpins `repo`: its segments may be evicted again, unless another pin has them. Returns
    /// whether it was pinned.
    pub(crate) fn unpin(&self, repo: &RepoName) -> io::Result<bool> {
        let was_pinned = pins::remove(&self.root, repo)?;
        *self.pinned.lock() = pins::read_all(&self.root)?;
        Ok(was_pinned)
    }

    /// Returns the pinned repositories.
    pub(crate) fn pinned_repos(&self) -> io::Result<Vec<RepoName>> {
        pins::repos(&self.root)
    }

    /// Opens the kept snapshots of the daemons that `identity` describes.
    pub(crate) fn kept_snapshots(&self, identity: &str) -> KeptSnapshots {
        KeptSnapshots::open(&self.root, identity)
    }

    /// Returns the path of the file with the content of a segment.
    pub(crate) fn data_path(&self, id: SegmentId) -> PathBuf {
        self.path(id, "data")
    }

    fn path(&self, id: SegmentId, extension: &str) -> PathBuf {
        let name = id.to_string();
        let shard: String = name.chars().take(2).collect();
        self.root.join(shard).join(format!("{name}.{extension}"))
    }
}

/// Refuses directories that belong to another user or that other users can write to.
fn check_access(directory: &Path, root: &Path) -> io::Result<()> {
    let refuse = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    let me = geteuid().as_raw();
    // Such a user could plant chunks together with marks that match them, or replace `v1` as a
    // whole.
    //
    // A symbolic link at `directory` is followed, because people put a cache on another disk. `v1`
    // is created by cachewfs itself, so a link there was made by somebody else.
    let outer = fs::metadata(directory)?;
    let inner = fs::symlink_metadata(root)?;
    for (path, owner) in [(directory, outer.uid()), (root, inner.uid())] {
        if owner != me && (path == root || owner != 0) {
            let path = path.display();
            return refuse(format!("{path} belongs to another user (uid {owner})"));
        }
    }
    // In a sticky directory such as `/tmp`, other users can't rename or remove `v1`.
    let is_shared = outer.mode() & 0o002 != 0;
    let is_sticky = outer.mode() & 0o1000 != 0;
    if !inner.is_dir() {
        return refuse(format!("{} is not a directory", root.display()));
    }
    if is_shared && !is_sticky {
        let path = directory.display();
        return refuse(format!("other users can write to {path}"));
    }
    if inner.mode() & 0o022 != 0 {
        let path = root.display();
        return refuse(format!("other users can write to {path}"));
    }
    if inner.mode() & 0o077 != 0 {
        let path = root.display();
        warn!(%path, "Other users can read the cache: chmod 700 {path}");
    }
    Ok(())
}

/// Reads the header of a meta file: the length of the table's frame in bytes.
fn read_header(meta: &mut File) -> io::Result<u64> {
    let mut header = [0; META_HEADER_LEN];
    meta.read_exact(&mut header)?;
    Ok(u64::from_le_bytes(header))
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
