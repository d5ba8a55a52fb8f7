//! Restoring a lost mirror from the current snapshot in the store.
//!
//! Upstream then has to send only the objects that are newer than the snapshot. Objects that
//! upstream has dropped, but that are retained, come back too: the next layout from scratch keeps
//! them.
//!
//! ```text
//! empty mirror ─► ask upstream for HEAD ─► copy packs and commit-graph ─► write refs
//!     ─► check that all tips are there ─► create hidden refs ─► git fetch ─► rename into place
//! ```
//!
//! All steps but the last work in a temporary directory, and each chunk is verified. So the mirror
//! appears complete and up to date, or not at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use cachewfs_format::{
    ArchiveKind, Content, EntryKind, Manifest, ObjectId, PublishedFile, RepoName, Role, Toc,
    TocLocation, TocSegment,
};

use crate::base::{in_background, map_concurrently};
use crate::config::Config;
use crate::mirror::{
    Git, GitError, MirrorError, Upstream, create_mirror, head_of_upstream, missing_objects,
    move_into_place, update,
};
use crate::publish::{CHAIN_DIRECTORY, PublishError, RETAINED, retain};
use crate::store::{Archive, Store, StoreError, wait};

/// At most this many files are copied at the same time. Each has one chunk in memory, and the store
/// limits its read-ahead.
const FILES_AT_ONCE: usize = 4;

/// Why a mirror can't be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("can't read the snapshot from the store")]
    Store(#[from] StoreError),
    #[error("can't parse the snapshot")]
    Format(#[from] cachewfs_format::Error),
    #[error("the snapshot lacks {what}")]
    Lacks { what: &'static str },
    #[error("can't restore the mirror's hidden refs")]
    Refs(#[from] PublishError),
    #[error("can't write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("git failed")]
    Git(#[from] GitError),
    #[error("can't update the restored mirror from upstream")]
    Mirror(#[from] MirrorError),
}

impl RestoreError {
    /// Returns the error of upstream if a clone would fail for this reason too. Otherwise returns
    /// `self`: the caller can clone instead.
    pub(crate) fn into_upstream(self) -> Result<MirrorError, Self> {
        match self {
            Self::Mirror(
                error @ (MirrorError::NotFound { .. }
                | MirrorError::Moved { .. }
                | MirrorError::Redirected { .. }
                | MirrorError::Denied { .. }
                | MirrorError::Unreachable { .. }
                | MirrorError::TimedOut { .. }
                | MirrorError::BadHead { .. }
                | MirrorError::Shallow { .. }
                | MirrorError::LeftBehind { .. }),
            ) => Ok(error),
            error => Err(error),
        }
    }
}

/// The restore of one mirror from one store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restore<'a> {
    pub(crate) git: &'a Git,
    pub(crate) config: &'a Config,
    pub(crate) store: &'a Store,
    pub(crate) repo: &'a RepoName,
    pub(crate) upstream: &'a Upstream,
}

impl Restore<'_> {
    /// Makes the mirror at `mirror`. Returns `false` if no snapshot is published to make it from.
    pub(crate) fn run(&self, mirror: &Path) -> Result<bool, RestoreError> {
        let Some(pointer) = wait(self.store.pointer(self.repo))? else {
            return Ok(false);
        };
        let manifest = wait(self.store.current_manifest(self.repo, &pointer))?;
        let tmp = self.config.data_dir.tmp();
        let staging = tempfile::Builder::new()
            .prefix("restore-")
            .tempdir_in(&tmp)
            .map_err(io(&tmp))?;
        let restored = staging.path().join("mirror.git");
        let format = match manifest.snapshot.commit().as_bytes().len() {
            32 => "sha256",
            _ => "sha1",
        };
        create_mirror(self.git, (self.upstream, format), &restored)?;
        // Before gigabytes are copied: if upstream can't be asked, the fetch below would fail too.
        head_of_upstream(self.git, self.upstream, &restored, &self.config.git)?;
        self.write_files(&manifest, &restored)?;
        let shown = self.write_refs(&manifest, &restored)?;
        // A snapshot whose packs lack a tip must not become a mirror. The caller clones instead.
        if !missing_objects(self.git, &restored, &manifest.tips)?.is_empty() {
            let what = "objects that its refs name";
            return Err(RestoreError::Lacks { what });
        }
        // The tips that no shown ref names were hidden refs of the published mirror. Archives don't
        // show hidden refs, so they are created again.
        let hidden = manifest.tips.iter().filter(|tip| !shown.contains(tip));
        retain(self.git, &restored, hidden)?;
        set_retained_times(&restored, manifest.created_at)?;
        let what = (restored.as_path(), &self.config.mirrors.namespaces[..]);
        // The fetch has as much time as a clone: the snapshot may be old, and upstream may have
        // much that is newer. A failure throws the restored mirror away.
        let limits = self.config.git.for_first_update();
        update(self.git, self.upstream, what, &limits)?;
        move_into_place(&restored, mirror)?;
        Ok(true)
    }

    /// Writes the packs and the commit-graph, several files at the same time.
    ///
    /// Most files are short, and each waits for the store several times. Their order doesn't
    /// matter, because git doesn't read the mirror before all files are there.
    fn write_files(&self, manifest: &Manifest, restored: &Path) -> Result<(), RestoreError> {
        let packs = restored.join("objects/pack");
        let graphs = restored.join(CHAIN_DIRECTORY);
        for directory in [&packs, &graphs] {
            fs::create_dir_all(directory).map_err(io(directory))?;
        }
        let of_packs = manifest
            .packs
            .iter()
            .flat_map(|pack| [&pack.pack, &pack.reverse_index, &pack.index])
            .map(|file| (file, (packs.as_path(), "pack-")));
        let of_graphs = manifest.commit_graphs.iter();
        let of_graphs = of_graphs.map(|file| (file, (graphs.as_path(), "graph-")));
        let mut files: Vec<_> = of_packs.chain(of_graphs).collect();
        // Longest first, so that no long file is left to be copied alone at the end.
        files.sort_by_key(|(file, _)| Reverse(file.size));
        let first_error = OnceLock::new();
        let is_aborted = || first_error.get().is_some() || self.git.is_stopping();
        let write = |&(file, place): &(_, _)| {
            if let Err(error) = self.write_file((file, place), &is_aborted) {
                // Only the first error is kept: it aborts the other files, whose errors follow from
                // it.
                first_error.set(error).ok();
            }
        };
        // With low priority: while a new daemon restores its mirrors, clients already read through
        // it, and decompression must not take the processors from them.
        in_background(|| map_concurrently(&files, FILES_AT_ONCE, write));
        first_error.into_inner().map_or(Ok(()), Err)
    }

    fn write_file(
        &self,
        (file, (directory, prefix)): (&PublishedFile, (&Path, &str)),
        is_aborted: &dyn Fn() -> bool,
    ) -> Result<(), RestoreError> {
        // The parser of manifests has checked that this is a name, not a path.
        if !file.name.starts_with(prefix) {
            let what = "file names with the expected prefix";
            return Err(RestoreError::Lacks { what });
        }
        let path = directory.join(&file.name);
        let created = File::create_new(&path).map_err(io(&path))?;
        let mut to = AbortableFile {
            file: created,
            is_aborted,
        };
        let copied = self
            .store
            .copy_content(self.repo, file, (file.size, &mut to));
        let table = wait(copied)?;
        file.check_table(&table)?;
        // The content of a damaged snapshot's segment may be shorter than its manifest says.
        if to.file.metadata().map_err(io(&path))?.len() != file.size {
            let what = "a part of a file";
            return Err(RestoreError::Lacks { what });
        }
        Ok(())
    }

    /// Writes HEAD, refs and the chain of commit-graphs. Returns the objects that the shown refs
    /// name.
    fn write_refs(
        &self,
        manifest: &Manifest,
        restored: &Path,
    ) -> Result<HashSet<ObjectId>, RestoreError> {
        let toc = self.table_of_contents(manifest)?;
        let chain = format!("{CHAIN_DIRECTORY}/commit-graph-chain");
        let mut files = SmallFiles::from([("HEAD", None), ("packed-refs", None), (&chain, None)]);
        for segment in &toc.segments {
            match (segment.role, &segment.file) {
                (Role::Refs, _) => self.read_members(segment, &mut files)?,
                // A long `packed-refs` is not among the small files but in parts, in order.
                (Role::PackedRefs, Some(file)) => {
                    let parts = files.entry("packed-refs").or_default();
                    let parts = parts.get_or_insert_default();
                    let to = (file.size, parts);
                    wait(self.store.copy_content(self.repo, segment, to))?;
                }
                _ => {}
            }
        }
        for (name, content) in &files {
            // There may be no commit-graph.
            let Some(content) = content else { continue };
            let path = restored.join(name);
            File::create(&path)
                .and_then(|mut file| file.write_all(content))
                .map_err(io(&path))?;
        }
        let file = |name| files.get(name).and_then(Option::as_deref);
        let (Some(_), Some(packed_refs)) = (file("HEAD"), file("packed-refs")) else {
            return Err(RestoreError::Lacks { what: "refs" });
        };
        let head = Some(manifest.snapshot.commit()).filter(|head| !head.is_null());
        Ok(ref_targets(packed_refs).chain(head).collect())
    }

    /// Reads the tar members of `segment` whose names are in `files`.
    fn read_members(
        &self,
        segment: &TocSegment,
        files: &mut SmallFiles<'_>,
    ) -> Result<(), RestoreError> {
        let mut content = Vec::new();
        let to = (segment.content_len, &mut content);
        let table = wait(self.store.copy_content(self.repo, segment, to))?;
        for entry in table.entries() {
            let EntryKind::File(Content::Inline { offset }) = entry.kind else {
                continue;
            };
            let name = std::str::from_utf8(entry.path.as_bytes()).unwrap_or_default();
            let Some(file) = files.get_mut(name) else {
                continue;
            };
            let start = usize::try_from(offset).ok();
            let end = usize::try_from(offset.saturating_add(entry.size)).ok();
            let bytes = start
                .zip(end)
                .and_then(|(start, end)| content.get(start..end));
            let what = "a part of its refs";
            let bytes = bytes.ok_or(RestoreError::Lacks { what })?;
            *file = Some(bytes.to_vec());
        }
        Ok(())
    }

    /// Reads the TOC of the mirror archive and checks its digest.
    fn table_of_contents(&self, manifest: &Manifest) -> Result<Toc, RestoreError> {
        let lacks = |what| RestoreError::Lacks { what };
        let layout = manifest.archives.get(&ArchiveKind::Mirror);
        let layout = layout.ok_or_else(|| lacks("a mirror archive"))?;
        let archive = Archive::new(self.store.clone(), self.repo.clone(), layout);
        let mut tail = vec![0; usize::try_from(layout.tail.len).unwrap_or(0)];
        wait(archive.read(layout.size.saturating_sub(layout.tail.len), &mut tail))?;
        let TocLocation::Found(place) = Toc::locate(&tail, layout.size)? else {
            return Err(lacks("a table of contents"));
        };
        let (digest, toc) = Toc::decode(tail.get(place).unwrap_or_default())?;
        if digest != layout.toc {
            return Err(lacks("the table of contents that its manifest names"));
        }
        Ok(toc)
    }
}

/// A file whose writes fail once the restore is aborted: another file failed or the daemon is
/// stopping.
struct AbortableFile<'a> {
    file: File,
    is_aborted: &'a dyn Fn() -> bool,
}

impl Write for AbortableFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.is_aborted)() {
            return Err(std::io::Error::other("the restore is aborted"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Sets the time of the hidden refs to the time at which the snapshot was made.
///
/// The age of a hidden ref decides how long its objects are retained. When upstream dropped them
/// isn't known, but it was before the snapshot was published. Without this, their time would begin
/// again with each restore.
fn set_retained_times(restored: &Path, created_at: u64) -> Result<(), RestoreError> {
    let directory = restored.join(RETAINED);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io(&directory))?,
    };
    let dropped_at = UNIX_EPOCH + Duration::from_secs(created_at);
    for entry in entries {
        let path = entry.map_err(io(&directory))?.path();
        File::open(&path)
            .and_then(|file| file.set_modified(dropped_at))
            .map_err(io(&path))?;
    }
    Ok(())
}

/// The wanted files of the git directory by their paths. A file that is not found yet has `None`.
type SmallFiles<'a> = BTreeMap<&'a str, Option<Vec<u8>>>;

/// Returns the objects that the lines of a `packed-refs` name.
fn ref_targets(packed_refs: &[u8]) -> impl Iterator<Item = ObjectId> {
    packed_refs
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').next())
        .filter_map(|oid| ObjectId::parse(std::str::from_utf8(oid).ok()?).ok())
}

/// Returns a function for `map_err` that makes an error of an I/O error at `path`.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}
