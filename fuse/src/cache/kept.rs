//! Keeps what a mount needs to show a repository before any daemon answers: one file for each
//! repository, with the table of contents of the snapshot that was shown last.
//!
//! The small files and the index are in segments of the cache. The file names these segments, and
//! eviction spares them.
//!
//! A daemon is known by its URL only. So each set of URLs has a directory of its own: another
//! daemon may have another repository of the same name.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cachewfs_format::{ArchiveKind, Digest, RepoName, SegmentId, SnapshotId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::staged;

/// How long a snapshot is kept after it was last shown from disk or changed.
const MAX_AGE: Duration = Duration::from_hours(365 * 24);
/// The name of the file with the list of hosts. Other names are digests.
const HOSTS: &str = "hosts";
/// The length of the checksum at the end of a file, in bytes.
const CHECKSUM_LEN: usize = 32;

/// The description of a snapshot that was shown, with the end of its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptSnapshot {
    pub(crate) header: KeptHeader,
    /// The end of the archive, from the TOC on.
    pub(crate) tail: Bytes,
}

/// The description of a snapshot that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptHeader {
    pub(crate) repo: RepoName,
    pub(crate) snapshot: SnapshotId,
    pub(crate) kind: ArchiveKind,
    /// The strong `ETag` of the archive, with its quotes.
    pub(crate) etag: String,
    pub(crate) archive_len: u64,
    pub(crate) notice: Option<String>,
    /// When a daemon last said that the snapshot is current, in seconds since the epoch.
    pub(crate) checked_at: u64,
    /// The segments with small files and the index.
    pub(crate) needs: Vec<SegmentId>,
}

/// The kept snapshots of one set of daemons.
#[derive(Debug)]
pub(crate) struct KeptSnapshots {
    directory: PathBuf,
}

impl KeptSnapshots {
    /// Opens the kept snapshots in the cache at `root` for the daemons that `identity` describes,
    /// and removes those of all daemons that nobody has needed for a year, and what killed mounts
    /// left.
    pub(super) fn open(root: &Path, identity: &str) -> Self {
        remove_old(root).ok();
        let key = Digest::of(identity.as_bytes()).to_string();
        let directory = root.join("kept").join(key);
        Self { directory }
    }

    /// Returns the repositories that have a kept snapshot.
    pub(crate) fn names(&self) -> Vec<RepoName> {
        let headers = files(&self.directory).filter_map(|(path, _)| header(&path));
        headers.map(|header| header.repo).collect()
    }

    /// Returns the kept snapshot of `repo`, or `None` if there is none or it is damaged.
    pub(crate) fn read(&self, repo: &RepoName) -> Option<KeptSnapshot> {
        let path = self.path(repo);
        let (header, rest): (KeptHeader, _) = read_file(&path)?;
        note_use(&path).ok();
        (header.repo == *repo).then_some(KeptSnapshot { header, tail: rest })
    }

    /// Keeps a snapshot in place of an older one of the same repository.
    pub(crate) fn write(&self, kept: &KeptSnapshot) {
        let path = self.path(&kept.header.repo);
        self.write_file(&path, &kept.header, &kept.tail);
    }

    /// Forgets the snapshot of `repo`.
    pub(crate) fn remove(&self, repo: &RepoName) {
        fs::remove_file(self.path(repo)).ok();
    }

    /// Returns the list of hosts that was kept last.
    pub(crate) fn hosts(&self) -> Option<Vec<String>> {
        let (hosts, _): (Vec<String>, _) = read_file(&self.directory.join(HOSTS))?;
        Some(hosts)
    }

    /// Keeps the list of hosts.
    pub(crate) fn write_hosts(&self, hosts: &[String]) {
        self.write_file(&self.directory.join(HOSTS), &hosts, &[]);
    }

    fn path(&self, repo: &RepoName) -> PathBuf {
        // A name may be longer than a file name.
        let name = Digest::of(repo.as_str().as_bytes());
        self.directory.join(name.to_string())
    }

    /// Writes a line of JSON, `rest`, and a checksum. There is no `fsync`: after a crash, a file
    /// whose checksum doesn't match counts as absent, and the mount asks the daemon.
    fn write_file(&self, path: &Path, header: &impl Serialize, rest: &[u8]) {
        let write = || {
            let mut bytes = serde_json::to_vec(header)?;
            bytes.push(b'\n');
            bytes.extend_from_slice(rest);
            bytes.extend_from_slice(Digest::of(&bytes).as_bytes());
            fs::create_dir_all(&self.directory)?;
            let mut staged = staged::create(&self.directory)?;
            staged.write_all(&bytes)?;
            staged.persist(path).map_err(|error| error.error)?;
            Ok::<_, io::Error>(())
        };
        if let Err(error) = write() {
            let path = path.display();
            warn!(%path, %error, "Can't write {path}: a mount without a daemon will not show it");
        }
    }
}

/// Returns the segments that kept snapshots need, those of the most recently used snapshot first.
pub(super) fn needed(root: &Path) -> Vec<Vec<SegmentId>> {
    let mut found: Vec<_> = directories(root)
        .flat_map(|directory| files(&directory))
        .filter_map(|(path, used_at)| Some((used_at, header(&path)?.needs)))
        .collect();
    found.sort_by_key(|&(used_at, _)| std::cmp::Reverse(used_at));
    found.into_iter().map(|(_, needs)| needs).collect()
}

/// Notes that the file at `path` is used now: its age counts from then.
fn note_use(path: &Path) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    let known = file.metadata()?.modified()?;
    // Never an earlier time: a machine may start with a clock that is years behind, and the file
    // would look old once the clock is right.
    file.set_modified(known.max(SystemTime::now()))
}

fn remove_old(root: &Path) -> io::Result<()> {
    for directory in directories(root) {
        for (path, used_at) in files(&directory) {
            staged::remove_left(&path);
            if used_at.elapsed().is_ok_and(|age| age > MAX_AGE) {
                fs::remove_file(path)?;
            }
        }
        // Fails if anything is left in it.
        fs::remove_dir(directory).ok();
    }
    Ok(())
}

fn directories(root: &Path) -> impl Iterator<Item = PathBuf> {
    let found = fs::read_dir(root.join("kept")).into_iter().flatten();
    found.flatten().map(|entry| entry.path())
}

/// Returns the files of a directory, each with the time of its last use.
fn files(directory: &Path) -> impl Iterator<Item = (PathBuf, SystemTime)> + use<> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    found.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?)))
}

/// Returns the header of a file without comparing its checksum, or `None` if it can't be parsed.
fn header(path: &Path) -> Option<KeptHeader> {
    let mut line = Vec::new();
    let file = fs::File::open(path).ok()?;
    io::BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

/// Reads a file that [`KeptSnapshots::write_file`] wrote. Returns `None` if it is absent or
/// damaged.
fn read_file<T: DeserializeOwned>(path: &Path) -> Option<(T, Bytes)> {
    let bytes = Bytes::from(fs::read(path).ok()?);
    let content = bytes.slice(..bytes.len().checked_sub(CHECKSUM_LEN)?);
    if bytes.get(content.len()..)? != Digest::of(&content).as_bytes() {
        return None;
    }
    let end = content.iter().position(|&byte| byte == b'\n')?;
    let header = serde_json::from_slice(content.get(..end)?).ok()?;
    Some((header, content.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_counts_as_absent_and_each_set_of_daemons_has_its_own() {
        let root = tempfile::tempdir().unwrap();
        let repo = RepoName::parse("host/org/repo").unwrap();
        let header = KeptHeader {
            repo: repo.clone(),
            snapshot: SnapshotId::parse(&"1".repeat(40)).unwrap(),
            kind: ArchiveKind::Checkout,
            etag: "\"e\"".to_owned(),
            archive_len: 7,
            notice: None,
            checked_at: 5,
            needs: vec![SegmentId(Digest::of(b"segment"))],
        };
        let tail = Bytes::from_static(b"tail\nwith lines");
        let kept = KeptSnapshot { header, tail };
        let ours = KeptSnapshots::open(root.path(), "http://a");

        ours.write(&kept);
        ours.write_hosts(&["host".to_owned()]);

        assert_eq!(ours.names(), std::slice::from_ref(&repo));
        assert_eq!(ours.read(&repo).as_ref(), Some(&kept));
        assert_eq!(ours.hosts(), Some(vec!["host".to_owned()]));
        assert_eq!(
            needed(root.path()),
            std::slice::from_ref(&kept.header.needs)
        );
        assert!(
            KeptSnapshots::open(root.path(), "http://b")
                .names()
                .is_empty()
        );
        // A clock that is behind makes no file look old.
        let path = ours.path(&repo);
        let later = SystemTime::now() + Duration::from_hours(24);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!(ours.read(&repo), Some(kept));
        assert_eq!(file.metadata().unwrap().modified().unwrap(), later);

        let mut bytes = fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
            assert_eq!(ours.read(&repo), None);
            bytes[at] ^= 1;
        }
    }
}
