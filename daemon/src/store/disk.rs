//! The store on local disk.
//!
//! Files appear whole or not at all, and the order is: segments, manifest, pointer. So a present
//! manifest has all its segments, and a present pointer its manifest.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cachewfs_format::{Digest, Manifest, Pointer, RepoName, SegmentId, SnapshotId};

use super::StoreError;
use crate::metrics::Counter;

/// So many new files are made durable one by one; for more, the whole filesystem is.
const MAX_SINGLE_SYNCS: usize = 16;

/// A store below one directory.
#[derive(Clone, Debug)]
pub(crate) struct DiskStore {
    root: PathBuf,
    /// On the same filesystem: files are finished here, then renamed.
    tmp: PathBuf,
    reads: Arc<Reads>,
}

/// What was read for clients, counted from the daemon's start.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Reads of a part of one segment.
    pub(crate) count: Counter,
    pub(crate) bytes: Counter,
}

/// A finished segment that is not yet in the store.
#[derive(Debug)]
pub(crate) struct NewSegment {
    pub(crate) id: SegmentId,
    pub(crate) file: PathBuf,
    pub(crate) len: u64,
}

/// What storing something did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there now.
    New,
    /// Something else was there before, and still is.
    TooLate,
}

impl DiskStore {
    /// `tmp` must be on the same filesystem as `root`.
    pub(crate) fn create(root: &Path, tmp: &Path) -> Result<Self, StoreError> {
        let root = root.join("v1");
        for directory in [&root, tmp] {
            fs::create_dir_all(directory).map_err(StoreError::at(directory))?;
        }
        Ok(Self {
            root,
            tmp: tmp.to_owned(),
            reads: Arc::default(),
        })
    }

    /// Moves finished segments in; those that are there already are dropped. Gives the number of
    /// bytes that are new.
    pub(crate) fn put_segments(
        &self,
        repo: &RepoName,
        segments: Vec<NewSegment>,
    ) -> Result<u64, StoreError> {
        let directory = self.directory(repo).join("segments");
        fs::create_dir_all(&directory).map_err(StoreError::at(&directory))?;
        let sync_each = segments.len() <= MAX_SINGLE_SYNCS;
        if !sync_each {
            let tmp = File::open(&self.tmp).map_err(StoreError::at(&self.tmp))?;
            rustix::fs::syncfs(tmp).map_err(|errno| StoreError::at(&self.tmp)(errno.into()))?;
        }
        let mut new_bytes = 0;
        for NewSegment { id, file, len } in segments {
            let path = directory.join(id.to_string());
            if path.exists() {
                fs::remove_file(&file).map_err(StoreError::at(&file))?;
                continue;
            }
            if sync_each {
                File::open(&file)
                    .and_then(|file| file.sync_all())
                    .map_err(StoreError::at(&file))?;
            }
            fs::rename(&file, &path).map_err(StoreError::at(&path))?;
            new_bytes += len;
        }
        sync_directory(&directory)?;
        Ok(new_bytes)
    }

    /// Opens a segment.
    pub(crate) fn open_segment(&self, repo: &RepoName, id: SegmentId) -> Result<File, StoreError> {
        let path = self.segment_path(repo, id);
        File::open(&path).map_err(StoreError::at(path))
    }

    /// What was read for clients.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(super) fn segment_path(&self, repo: &RepoName, id: SegmentId) -> PathBuf {
        self.directory(repo).join("segments").join(id.to_string())
    }

    /// Writes a manifest unless its snapshot has one.
    pub(crate) fn put_manifest(
        &self,
        manifest: &Manifest,
    ) -> Result<(Written, Digest), StoreError> {
        let path = self.manifest_path(&manifest.repo, manifest.snapshot);
        let (file, digest) = self.write_json(&path, manifest.to_json())?;
        let written = match fs::hard_link(file.path(), &path) {
            Ok(()) => Written::New,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Written::TooLate,
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        sync_directory(path.parent().unwrap_or(&path))?;
        Ok((written, digest))
    }

    /// The manifest of a snapshot and the digest of its bytes, if it is published.
    pub(crate) fn manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        let path = self.manifest_path(repo, snapshot);
        let found = read_json(&path, Manifest::parse)?;
        if let Some((manifest, _)) = &found
            && (&manifest.repo, manifest.snapshot) != (repo, snapshot)
        {
            return Err(StoreError::Misplaced { path });
        }
        Ok(found)
    }

    /// When the manifest of a snapshot was written, or stopped to be current, if there is one.
    pub(crate) fn manifest_written_at(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<SystemTime>, StoreError> {
        let path = self.manifest_path(repo, snapshot);
        match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            written_at => written_at.map(Some).map_err(StoreError::at(path)),
        }
    }

    /// Notes that a snapshot is no longer current: it is kept for its time from now on.
    pub(crate) fn note_replaced(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<(), StoreError> {
        let path = self.manifest_path(repo, snapshot);
        File::open(&path)
            .and_then(|manifest| manifest.set_modified(SystemTime::now()))
            .map_err(StoreError::at(path))
    }

    /// The manifest that `pointer` names.
    pub(crate) fn current_manifest(
        &self,
        repo: &RepoName,
        pointer: &Pointer,
    ) -> Result<Manifest, StoreError> {
        let path = self.manifest_path(repo, pointer.snapshot);
        match self.manifest(repo, pointer.snapshot)? {
            Some((manifest, digest)) if digest == pointer.manifest => Ok(manifest),
            Some(_) => Err(StoreError::WrongDigest { path }),
            None => Err(StoreError::at(path)(ErrorKind::NotFound.into())),
        }
    }

    pub(super) fn manifest_path(&self, repo: &RepoName, snapshot: SnapshotId) -> PathBuf {
        self.directory(repo)
            .join("snapshots")
            .join(snapshot.to_string())
    }

    /// Which snapshot is current, if one is published.
    pub(crate) fn pointer(&self, repo: &RepoName) -> Result<Option<Pointer>, StoreError> {
        let pointer = read_json(&self.directory(repo).join("current"), Pointer::parse)?;
        Ok(pointer.map(|(pointer, _)| pointer))
    }

    /// Makes `new` the pointer if the present one is `expected`.
    pub(crate) fn swap_pointer(
        &self,
        repo: &RepoName,
        expected: Option<&Pointer>,
        new: &Pointer,
    ) -> Result<Written, StoreError> {
        let path = self.directory(repo).join("current");
        let lock_path = self.directory(repo).join("current.lock");
        let lock = File::create(&lock_path).map_err(StoreError::at(&lock_path))?;
        // Held to the end of the function; the kernel releases it if the daemon dies.
        lock.lock().map_err(StoreError::at(&lock_path))?;
        if self.pointer(repo)?.as_ref() != expected {
            return Ok(Written::TooLate);
        }
        let (file, _) = self.write_json(&path, new.to_json())?;
        file.persist(&path)
            .map_err(|error| StoreError::at(&path)(error.error))?;
        sync_directory(path.parent().unwrap_or(&path))?;
        Ok(Written::New)
    }

    /// No segment of a repository's path ends in ".git": so `h/a/current`, a repository too, doesn't
    /// collide with the pointer of `h/a`.
    pub(super) fn directory(&self, repo: &RepoName) -> PathBuf {
        self.root.join(format!("{repo}.git"))
    }

    /// Writes what belongs at `path` to a durable temporary file, and gives the digest of it.
    fn write_json(
        &self,
        path: &Path,
        json: cachewfs_format::Result<Vec<u8>>,
    ) -> Result<(tempfile::NamedTempFile, Digest), StoreError> {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).map_err(StoreError::at(parent))?;
        let bytes = json.map_err(|source| StoreError::Encode {
            path: path.to_owned(),
            source,
        })?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.tmp)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        Ok((
            write().map_err(StoreError::at(&self.tmp))?,
            Digest::of(&bytes),
        ))
    }
}

fn read_json<T>(
    path: &Path,
    parse: fn(&[u8]) -> cachewfs_format::Result<T>,
) -> Result<Option<(T, Digest)>, StoreError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(StoreError::at(path))?,
    };
    let value = parse(&bytes).map_err(|source| StoreError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some((value, Digest::of(&bytes))))
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(StoreError::at(directory))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cachewfs_format::ObjectId;

    use super::*;

    fn store() -> (tempfile::TempDir, DiskStore, RepoName) {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskStore::create(directory.path(), &directory.path().join("tmp")).unwrap();
        (directory, store, RepoName::parse("example.com/a").unwrap())
    }

    fn pointer(byte: u8) -> Pointer {
        Pointer {
            version: Pointer::VERSION,
            snapshot: SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap()),
            manifest: Digest::of(&[byte]),
            archives: BTreeMap::new(),
            published_at: 7,
        }
    }

    #[test]
    fn a_pointer_moves_only_from_what_is_expected() {
        let (_directory, store, repo) = store();
        let (first, second) = (pointer(1), pointer(2));
        fs::create_dir_all(store.directory(&repo)).unwrap();

        assert_eq!(
            store.swap_pointer(&repo, None, &first).unwrap(),
            Written::New
        );
        assert_eq!(
            store.swap_pointer(&repo, None, &second).unwrap(),
            Written::TooLate
        );
        assert_eq!(store.pointer(&repo).unwrap(), Some(first.clone()));
        assert_eq!(
            store.swap_pointer(&repo, Some(&first), &second).unwrap(),
            Written::New
        );
        assert_eq!(store.pointer(&repo).unwrap(), Some(second));
    }

    #[test]
    fn repositories_below_a_repository_do_not_collide_with_it() {
        let (_directory, store, repo) = store();
        let names = [
            "current",
            "snapshots",
            "segments",
            "snapshots/x",
            "current.lock",
        ];
        let below = names.map(|name| RepoName::parse(&format!("{repo}/{name}")).unwrap());

        for repo in below.iter().chain([&repo]) {
            fs::create_dir_all(store.directory(repo)).unwrap();
            let written = store.swap_pointer(repo, None, &pointer(1)).unwrap();
            assert_eq!(written, Written::New, "{repo}");
            store.put_segments(repo, Vec::new()).unwrap();
        }

        for repo in below.iter().chain([&repo]) {
            assert_eq!(store.pointer(repo).unwrap(), Some(pointer(1)), "{repo}");
        }
    }

    #[test]
    fn a_pointer_of_a_later_version_is_refused_and_kept() {
        let (_directory, store, repo) = store();
        fs::create_dir_all(store.directory(&repo)).unwrap();
        let path = store.directory(&repo).join("current");
        let later = br#"{"version":2,"what":"nobody knows yet"}"#;
        File::create(&path).unwrap().write_all(later).unwrap();

        let read = store.pointer(&repo);
        let swapped = store.swap_pointer(&repo, None, &pointer(1));

        let is_refused = |error: StoreError| {
            matches!(
                error,
                StoreError::Unreadable {
                    source: cachewfs_format::Error::UnknownVersion { version: 2, .. },
                    ..
                }
            )
        };
        assert!(is_refused(read.unwrap_err()));
        assert!(is_refused(swapped.unwrap_err()));
        assert_eq!(fs::read(&path).unwrap(), later);
    }

    #[test]
    fn a_manifest_that_belongs_elsewhere_is_refused() {
        let (_directory, store, repo) = store();
        let here = SnapshotId::first(ObjectId::from_bytes(&[1; 20]).unwrap());
        let elsewhere = SnapshotId::first(ObjectId::from_bytes(&[2; 20]).unwrap());
        let manifest = Manifest {
            version: Manifest::VERSION,
            repo: repo.clone(),
            snapshot: here,
            refs_digest: Digest::of(b"refs"),
            created_at: 7,
            archives: BTreeMap::new(),
            packs: Vec::new(),
            commit_graphs: Vec::new(),
            tips: Vec::new(),
            runs: Vec::new(),
        };
        store.put_manifest(&manifest).unwrap();

        let copied = store.manifest_path(&repo, elsewhere);
        fs::copy(store.manifest_path(&repo, here), &copied).unwrap();

        assert_eq!(store.manifest(&repo, here).unwrap().unwrap().0, manifest);
        let error = store.manifest(&repo, elsewhere).unwrap_err();
        assert!(matches!(error, StoreError::Misplaced { path } if path == copied));
    }

    #[test]
    fn a_segment_that_is_there_is_not_written_again() {
        let (directory, store, repo) = store();
        let id = SegmentId(Digest::of(b"x"));
        let new = || {
            let file = directory.path().join("tmp/x");
            File::create(&file).unwrap().write_all(b"x").unwrap();
            vec![NewSegment { id, file, len: 1 }]
        };

        assert_eq!(store.put_segments(&repo, new()).unwrap(), 1);
        assert_eq!(store.put_segments(&repo, new()).unwrap(), 0);
        assert_eq!(fs::read(store.segment_path(&repo, id)).unwrap(), b"x");
    }
}
