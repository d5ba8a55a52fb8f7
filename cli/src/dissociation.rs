//! Makes a clone independent of the mount that it borrows objects from.
//!
//! 1. Each pack of the mounted repository is copied into the clone, and forced to the disk.
//! 2. The mount's line goes out of `alternates`, in one step.
//! 3. The settings that `cachewfs clone` wrote for a borrowing clone go out of `config`.
//!
//! At each moment the clone has all of its objects, here or in the mount. So a process that is
//! killed leaves a clone that works, and the next one copies only the packs that are missing.
//!
//! Packs are copied, and not made anew: that needs no memory and no look at the history, and a
//! commit that somebody makes or fetches meanwhile loses nothing.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::borrowing::{BorrowedObjects, borrowed, lines_of};
use crate::clone_files::without_borrowing_settings;
use crate::error::CliError;

/// The beginning of the names of files that are being copied. git removes files whose names begin
/// with `tmp_`, in case a killed process leaves one.
const PREFIX: &str = "tmp_cachewfs_";
/// The files of a pack, in the order in which they are copied. A pack is visible to git once it has
/// its `.idx`.
const SUFFIXES: [&str; 3] = ["rev", "pack", "idx"];
/// At most this many bytes are copied between two looks at the clock.
const PIECE_LEN: usize = 1 << 20;
/// How often the packs are listed again. A mount may move to a newer snapshot while its packs are
/// copied, and git may fetch refs of that snapshot.
const MAX_ROUNDS: usize = 20;

/// A git directory whose objects are partly in a mount.
#[derive(Debug)]
pub(crate) struct BorrowingRepository {
    /// The directory with `config` and `objects`.
    git_dir: PathBuf,
    /// The lines of `alternates` that name directories of objects in mounts.
    borrowed: Vec<Vec<u8>>,
}

/// A copy that was made of one repository's packs.
#[derive(Debug, Serialize)]
pub(crate) struct CopyReport {
    pub(crate) git_dir: PathBuf,
    /// The mounted repositories.
    pub(crate) borrowed_from: Vec<PathBuf>,
    pub(crate) packs: usize,
    pub(crate) copied_bytes: u64,
}

/// A file of a pack that the clone doesn't have.
#[derive(Debug)]
struct MissingFile {
    source: PathBuf,
    name: OsString,
    len: u64,
}

impl BorrowingRepository {
    /// Returns the repository with `objects` if it borrows from a mount.
    pub(crate) fn open(objects: &Path) -> Result<Option<Self>> {
        let mut borrowed_lines = lines_of(&objects.join("info/alternates"));
        borrowed_lines.retain(|line| {
            let place = borrowed(line, objects);
            matches!(place, Some(BorrowedObjects::OfMounted(_)))
        });
        let git_dir = objects.parent().unwrap_or(Path::new("/"));
        let git_dir = fs::canonicalize(git_dir)
            .with_context(|| format!("can't open {}", git_dir.display()))?;
        let repository = Self {
            git_dir,
            borrowed: borrowed_lines,
        };
        Ok(Some(repository).filter(|repository| !repository.borrowed.is_empty()))
    }

    /// Returns the git directories of the submodules of a git directory that borrow from mounts,
    /// also of those in submodules.
    pub(crate) fn submodules(git_dir: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut directories = vec![git_dir.join("modules")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if !entry.file_type()?.is_dir() {
                    continue;
                }
                let path = entry.path();
                let objects = path.join("objects");
                if objects.is_dir() && path.join("HEAD").exists() {
                    found.extend(Self::open(&objects)?);
                    directories.push(path.join("modules"));
                } else {
                    // The name of a submodule may have slashes.
                    directories.push(path);
                }
            }
        }
        found.sort_by(|one, other| one.git_dir.cmp(&other.git_dir));
        Ok(found)
    }

    /// Returns the paths of the mounted repositories.
    pub(crate) fn borrowed_from(&self) -> Vec<PathBuf> {
        let lines = self.borrowed.iter();
        let places = lines.filter_map(|line| borrowed(line, &self.objects()));
        let paths = places.filter_map(|place| match place {
            BorrowedObjects::OfMounted(repository) => Some(repository),
            BorrowedObjects::Own(_) => None,
        });
        paths.collect()
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.git_dir.join("objects")
    }

    /// Returns how many bytes a copy of the missing packs takes.
    pub(crate) fn missing_bytes(&self) -> Result<u64> {
        let missing = self.missing_packs()?;
        Ok(missing.iter().flatten().map(|file| file.len).sum())
    }

    /// Returns what a dissociation would do.
    pub(crate) fn preview(&self) -> Result<CopyReport> {
        let missing = self.missing_packs()?;
        Ok(CopyReport {
            git_dir: self.git_dir.clone(),
            borrowed_from: self.borrowed_from(),
            packs: missing.len(),
            copied_bytes: missing.iter().flatten().map(|file| file.len).sum(),
        })
    }

    /// Copies all packs, and ends the borrowing. Calls `on_progress` with the bytes copied so far.
    /// Fails soon after `is_interrupted` becomes true.
    pub(crate) fn dissociate(
        &self,
        is_interrupted: &AtomicBool,
        on_progress: impl Fn(u64),
    ) -> Result<CopyReport> {
        let packs = self.objects().join("pack");
        fs::create_dir_all(&packs)?;
        let _lock = lock(&packs)?;
        remove_left(&packs);
        let mut report = CopyReport {
            git_dir: self.git_dir.clone(),
            borrowed_from: self.borrowed_from(),
            packs: 0,
            copied_bytes: 0,
        };
        let mut copy_missing = || -> Result<bool> {
            let missing = self.missing_packs()?;
            for file in missing.iter().flatten() {
                let done = report.copied_bytes;
                let on_progress = |bytes| on_progress(done + bytes);
                report.copied_bytes += copy(file, &packs, is_interrupted, on_progress)
                    .with_context(|| format!("can't copy {}", file.source.display()))?;
            }
            report.packs += missing.len();
            // The names of the copies are on the disk before the clone depends on them.
            File::open(&packs)?.sync_all()?;
            Ok(missing.is_empty())
        };
        for _ in 0..MAX_ROUNDS {
            if !copy_missing()? {
                continue;
            }
            self.write_alternates(false)?;
            // A fetch may have used a pack that the mount began to show after the last look.
            if copy_missing()? {
                break;
            }
            self.write_alternates(true)?;
        }
        if !self.is_dissociated() {
            anyhow::bail!("the mount shows new packs again and again");
        }
        self.forget_settings()?;
        Ok(report)
    }

    /// Returns the files of each pack that is in a mount and not here. A pack has its index last.
    fn missing_packs(&self) -> Result<Vec<Vec<MissingFile>>> {
        let own = self.objects().join("pack");
        let mut missing = Vec::new();
        for line in &self.borrowed {
            let objects = self.objects().join(OsStr::from_bytes(line));
            let packs = objects.join("pack");
            let entries = fs::read_dir(&packs).map_err(|error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    let repository = objects.display().to_string();
                    anyhow::Error::new(CliError::CloneWithoutMount { repository })
                }
                _ => anyhow::Error::new(error).context(format!("can't list {}", packs.display())),
            })?;
            for entry in entries {
                let name = entry?.file_name();
                let Some(base) = pack_of_index(&name) else {
                    continue;
                };
                // The index is copied last. Where it is, the whole pack is.
                if own.join(&name).exists() {
                    continue;
                }
                missing.push(files_of(&packs, base)?);
            }
        }
        // In two mounted repositories, a fork and its parent, one pack may occur twice.
        missing.sort_by(|one, other| name_of(one).cmp(&name_of(other)));
        missing.dedup_by(|one, other| name_of(one) == name_of(other));
        Ok(missing)
    }

    /// Writes `alternates` with or without the lines that name mounts.
    fn write_alternates(&self, with_mounts: bool) -> Result<()> {
        let path = self.objects().join("info/alternates");
        let text = fs::read(&path).unwrap_or_default();
        let is_other = |line: &&[u8]| !self.borrowed.iter().any(|borrowed| borrowed == line);
        let lines = text
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut lines: Vec<&[u8]> = lines.filter(is_other).collect();
        if with_mounts {
            lines.extend(self.borrowed.iter().map(Vec::as_slice));
        }
        let new: Vec<u8> = lines
            .iter()
            .flat_map(|line| [line, &b"\n"[..]].concat())
            .collect();
        let written = if new.is_empty() {
            fs::remove_file(&path)
        } else {
            replace(&path, &new)
        };
        written.with_context(|| format!("can't change {}", path.display()))
    }

    fn is_dissociated(&self) -> bool {
        matches!(Self::open(&self.objects()), Ok(None))
    }

    /// Removes the settings that `cachewfs clone` wrote because the clone borrowed its objects.
    fn forget_settings(&self) -> Result<()> {
        let path = self.git_dir.join("config");
        let failed = || format!("can't change {}", path.display());
        let config = fs::read(&path).with_context(failed)?;
        let Some(new) = without_borrowing_settings(&config) else {
            return Ok(());
        };
        // git keeps away from a configuration whose `config.lock` exists.
        let lock = self.git_dir.join("config.lock");
        let mode = fs::metadata(&path).with_context(failed)?.permissions();
        let written = File::create_new(&lock).and_then(|mut file| {
            file.write_all(&new)?;
            file.set_permissions(mode)?;
            fs::rename(&lock, &path).inspect_err(|_| {
                fs::remove_file(&lock).ok();
            })
        });
        written.with_context(failed)
    }
}

/// Returns the base name of a pack if `name` is the name of its index.
fn pack_of_index(name: &OsStr) -> Option<&str> {
    let base = name.to_str()?.strip_suffix(".idx")?;
    base.starts_with("pack-").then_some(base)
}

fn name_of(files: &[MissingFile]) -> Option<&OsStr> {
    files.last().map(|file| &*file.name)
}

/// Returns the files of a pack that exist.
fn files_of(packs: &Path, base: &str) -> Result<Vec<MissingFile>> {
    let mut files = Vec::new();
    for suffix in SUFFIXES {
        let name = OsString::from(format!("{base}.{suffix}"));
        let source = packs.join(&name);
        let len = match fs::metadata(&source) {
            Ok(file) => file.len(),
            // A pack without reverse index, or one that the mount has just ceased to show.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("can't open {}", source.display()));
            }
        };
        files.push(MissingFile { source, name, len });
    }
    Ok(files)
}

/// Keeps other processes from the same work until the file is closed.
fn lock(packs: &Path) -> Result<File> {
    let file = File::open(packs)?;
    // Another error means a filesystem without locks: there, nobody can find out.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        let directory = packs.display().to_string();
        return Err(CliError::DissociatedTwice { directory }.into());
    }
    Ok(file)
}

/// Removes the files that a killed process left half copied.
fn remove_left(packs: &Path) {
    for entry in fs::read_dir(packs).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// Copies a file into the directory `packs`, and gives it its name once it is on the disk. Returns
/// the number of bytes. Copies nothing if the mount has ceased to show the file: its objects are in
/// newer packs then.
fn copy(
    file: &MissingFile,
    packs: &Path,
    is_interrupted: &AtomicBool,
    on_progress: impl Fn(u64),
) -> Result<u64> {
    let mut source = match File::open(&file.source) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut target = tempfile::Builder::new()
        .prefix(PREFIX)
        // As git writes its packs.
        .permissions(Permissions::from_mode(0o444))
        .tempfile_in(packs)?;
    let mut piece = vec![0; PIECE_LEN];
    let mut done = 0;
    loop {
        if is_interrupted.load(Ordering::Relaxed) {
            return Err(CliError::Interrupted.into());
        }
        let read = source.read(&mut piece)?;
        if read == 0 {
            break;
        }
        target.write_all(piece.get(..read).unwrap_or_default())?;
        done += read as u64;
        on_progress(done);
    }
    if done != file.len {
        anyhow::bail!("it has {done} bytes instead of {}", file.len);
    }
    target.as_file().sync_all()?;
    target.persist(packs.join(&file.name))?;
    Ok(done)
}

/// Replaces a file in one step.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    new.write_all(content)?;
    new.persist(path)?;
    Ok(())
}
