//! The directory of the cache.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use cachewfs_format::limits::MAX_TABLE_LEN;
use cachewfs_format::{RepoName, SegmentId, SegmentTable};
use rustix::process::geteuid;
use tokio::sync::Notify;
use tracing::warn;

use super::{SegmentFile, evict, pins};

/// The meta file starts with the length of the table's frame, 8 bytes.
const META_HEADER_LEN: usize = 8;

/// The chunks that this machine has, of all repositories.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    max_bytes: u64,
    /// Bytes of disk taken, as far as is known: counted at start, then by what is stored.
    used_bytes: AtomicU64,
    pinned: Mutex<HashSet<SegmentId>>,
    grew_over_limit: Notify,
}

impl Cache {
    /// Opens the cache at `directory`, creating it if need be.
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let root = directory.join("v1");
        // Not for other users: what a private repository holds is in here.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        check_access(directory, &root)?;
        let pinned = Mutex::new(pins::read_all(&root)?);
        let used_bytes = evict::scan(&root)?.iter().map(|file| file.bytes).sum();
        let cache = Self {
            root,
            max_bytes,
            used_bytes: AtomicU64::new(0),
            pinned,
            grew_over_limit: Notify::new(),
        };
        // The limit may be less than last time.
        cache.count_stored(used_bytes);
        Ok(cache)
    }

    /// Bytes of disk taken.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of disk that may be taken.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The table of a segment, if it is here and whole.
    pub(crate) fn table(&self, id: SegmentId) -> Option<SegmentTable> {
        let mut meta = File::open(self.path(id, "meta")).ok()?;
        let mut header = [0; META_HEADER_LEN];
        meta.read_exact(&mut header).ok()?;
        let len = u64::from_le_bytes(header);
        if len > u64::from(MAX_TABLE_LEN) {
            return None;
        }
        let mut frame = vec![0; usize::try_from(len).ok()?];
        meta.read_exact(&mut frame).ok()?;
        SegmentTable::decode(id, &frame).ok()
    }

    /// Keeps the frame of a segment's table.
    pub(crate) fn store_table(&self, id: SegmentId, frame: &[u8]) -> io::Result<()> {
        let path = self.path(id, "meta");
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory)?;
        let staged = tempfile::Builder::new()
            .prefix(".meta-")
            .tempfile_in(directory)?;
        staged
            .as_file()
            .write_all_at(&(frame.len() as u64).to_le_bytes(), 0)?;
        staged
            .as_file()
            .write_all_at(frame, META_HEADER_LEN as u64)?;
        // Another process may have been faster; its file has marks already.
        match staged.persist_noclobber(&path) {
            Err(error) if self.table(id).is_none() => {
                // A damaged file is in the way: replace it, and the marks with it.
                error.file.persist(&path).map_err(|error| error.error)?;
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// Opens the content of a segment whose table is kept; `len` is how much of it to keep.
    pub(crate) fn open_segment(
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

    /// Notes when a segment was used last, for eviction.
    pub(crate) fn touch(&self, id: SegmentId, used_at: SystemTime) {
        let touched = File::options()
            .write(true)
            .open(self.path(id, "meta"))
            .and_then(|meta| meta.set_modified(used_at));
        // Without it the segment only seems older than it is.
        touched.ok();
    }

    /// Counts bytes that were stored.
    pub(crate) fn count_stored(&self, bytes: u64) {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if used.saturating_add(bytes) > self.max_bytes {
            self.grew_over_limit.notify_one();
        }
    }

    /// Waits until something is stored beyond the limit.
    pub(crate) async fn over_limit(&self) {
        self.grew_over_limit.notified().await;
    }

    /// Evicts the segments that were not used for longest, down to nine tenths of the limit; gives
    /// the ids of those evicted.
    pub(crate) fn evict(&self) -> io::Result<HashSet<SegmentId>> {
        let files = evict::scan(&self.root)?;
        let used: u64 = files.iter().map(|file| file.bytes).sum();
        // Another mount's pins count as well.
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        *pinned = pins::read_all(&self.root)?;
        let victims = evict::choose(files, self.max_bytes / 10 * 9, &pinned);
        drop(pinned);
        let mut freed = 0;
        for victim in &victims {
            // Who has it open goes on reading it; the space is free when they are done.
            fs::remove_file(self.path(victim.id, "meta"))?;
            fs::remove_file(self.path(victim.id, "data")).or_else(ignore_absent)?;
            freed += victim.bytes;
        }
        self.used_bytes
            .store(used.saturating_sub(freed), Ordering::Relaxed);
        Ok(victims.into_iter().map(|victim| victim.id).collect())
    }

    /// Returns how many bytes of disk `segments` may take once they are pinned for `repo`: what the
    /// pins of other repositories leave. Looks at all files of the cache.
    pub(crate) fn room_for_pin(
        &self,
        repo: &RepoName,
        segments: &HashSet<SegmentId>,
    ) -> io::Result<u64> {
        let others = pins::read_others(&self.root, repo)?;
        let is_others = |id| others.contains(&id) && !segments.contains(&id);
        let files = evict::scan(&self.root)?;
        let taken = files.iter().filter(|file| is_others(file.id));
        let taken: u64 = taken.map(|file| file.bytes).sum();
        Ok(self.max_bytes.saturating_sub(taken))
    }

    /// Never evicts `segments` while `repo` is pinned.
    pub(crate) fn pin(&self, repo: &RepoName, segments: &[SegmentId]) -> io::Result<()> {
        pins::write(&self.root, repo, segments)?;
        self.pinned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(segments);
        Ok(())
    }

    /// Lets the segments of `repo` be evicted again.
    pub(crate) fn unpin(&self, repo: &RepoName) -> io::Result<()> {
        pins::remove(&self.root, repo).or_else(ignore_absent)?;
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = pins::read_all(&self.root)?;
        Ok(())
    }

    /// The pinned repositories.
    pub(crate) fn pinned_repos(&self) -> io::Result<Vec<RepoName>> {
        pins::repos(&self.root)
    }

    fn path(&self, id: SegmentId, extension: &str) -> PathBuf {
        let name = id.to_string();
        let shard: String = name.chars().take(2).collect();
        self.root.join(shard).join(format!("{name}.{extension}"))
    }
}

/// Refuses directories where another user may put files. Such a user could read and replace chunks.
fn check_access(directory: &Path, root: &Path) -> io::Result<()> {
    let refuse = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    let me = geteuid().as_raw();
    // Links to it are followed: people put a cache on another disk.
    let outer = fs::metadata(directory)?;
    let inner = fs::symlink_metadata(root)?;
    for (path, owner) in [(directory, outer.uid()), (root, inner.uid())] {
        if owner != me && (path == root || owner != 0) {
            let path = path.display();
            return refuse(format!("{path} belongs to another user (uid {owner})"));
        }
    }
    let is_shared = outer.mode() & 0o002 != 0;
    let is_sticky = outer.mode() & 0o1000 != 0;
    if is_shared && !is_sticky || inner.mode() & 0o022 != 0 || !inner.is_dir() {
        return refuse("other users can write there".to_owned());
    }
    if inner.mode() & 0o077 != 0 {
        let path = root.display();
        warn!(%path, "Other users can read the cache: chmod 700 {path}");
    }
    Ok(())
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
