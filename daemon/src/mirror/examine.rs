//! Examines a mirror for damage. The evidence is the mirror's own files, and the exit codes of git
//! when it reads the mirror's objects.
//!
//! Messages of git are no evidence. Their text differs between versions, and a message about an
//! unreadable object may be about an object of upstream.
//!
//! ```text
//! config, HEAD ─► refs ─► both ends of packs ─► derived files ─► all bytes of packs ─► all objects
//! seconds ──────────────────────────────────────────────────────────────────────────────► minutes
//! ```
//!
//! A failure of git is evidence only if three things are true: git exits with the code of its own
//! errors, it fails twice, and it works in an empty repository. Otherwise the machine or the
//! operator's configuration is at fault.
//!
//! The cheap checks come first, and the check that needs much memory comes last. Derived files
//! (commit-graph, multi-pack-index, bitmaps, reverse indexes) and unreadable refs are removed: git
//! works without them, and the next update or publish writes them again. If anything else is
//! damaged, the mirror has to be recreated.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_format::{GitHash, ObjectId};

use super::{Git, GitError};

/// How many bytes of a file are read at once for its checksum.
const BLOCK_LEN: usize = 1 << 20;
/// git's exit code for its own errors (`die`).
const FATAL: i32 = 128;
/// The length of the signature, version and fan-out table of a pack index (`gitformat-pack(5)`).
const INDEX_HEAD_LEN: u64 = 8 + 4 * 256;

/// The result of examining a mirror.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Nothing is wrong.
    Sound,
    /// These files were damaged and have been removed. git works without them.
    Repaired(Vec<PathBuf>),
    Damaged(Damage),
}

/// The damage in a mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("git doesn't recognise the mirror's directory as a repository")]
    NoRepository(#[source] GitError),
    #[error("can't read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} {what}")]
    Malformed { path: PathBuf, what: &'static str },
    #[error("objects that refs need are missing or unreadable")]
    Objects(#[source] GitError),
}

/// Why a mirror could not be examined to the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExamineError {
    #[error("can't read {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("a git command that examines the mirror failed")]
    Git(#[from] GitError),
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why an examination ends early: the first damage, or an error.
enum EarlyEnd {
    Damage(Damage),
    Error(ExamineError),
}

impl From<ExamineError> for EarlyEnd {
    fn from(error: ExamineError) -> Self {
        Self::Error(error)
    }
}

/// Examines `mirror` and removes damaged files that git works without. Nobody may change the mirror
/// meanwhile. `limit` is the time limit of each git command. Reads the whole mirror if it is sound.
pub(crate) fn examine(git: &Git, mirror: &Path, limit: Duration) -> Result<Finding, ExamineError> {
    let mut examination = Examination {
        git,
        mirror,
        limit,
        id_len: 0,
        removed: Vec::new(),
    };
    match examination.run() {
        Ok(()) if examination.removed.is_empty() => Ok(Finding::Sound),
        Ok(()) => Ok(Finding::Repaired(examination.removed)),
        Err(EarlyEnd::Damage(damage)) => Ok(Finding::Damaged(damage)),
        Err(EarlyEnd::Error(error)) => Err(error),
    }
}

/// An examination in progress.
struct Examination<'a> {
    git: &'a Git,
    mirror: &'a Path,
    limit: Duration,
    /// The length of an object id in bytes.
    id_len: usize,
    /// The damaged files that were removed.
    removed: Vec<PathBuf>,
}

impl Examination<'_> {
    fn run(&mut self) -> Result<(), EarlyEnd> {
        // The files that git needs to recognise a repository at all. Without them, every later
        // command would fail, and the reason would be lost.
        for file in ["HEAD", "config"] {
            let path = self.mirror.join(file);
            read(&path, fs::read)?;
        }
        let format = self.git("rev-parse", &["--show-object-format"], Damage::NoRepository)?;
        self.id_len = if format.trim_ascii() == b"sha256" {
            32
        } else {
            20
        };
        // If the config lost its content (as after a crash), git still finds a repository, but no
        // longer a bare one.
        let is_bare = self.git("rev-parse", &["--is-bare-repository"], Damage::NoRepository)?;
        if is_bare.trim_ascii() != b"true" {
            return malformed(self.mirror.join("config"), "has lost its settings");
        }
        for part in ["objects", "refs"] {
            read(&self.mirror.join(part), fs::read_dir)?;
        }
        self.check_packed_refs()?;
        self.check_loose_refs(&self.mirror.join("refs"))?;
        let packs = self.packs()?;
        for pack in &packs {
            self.check_ends(pack)?;
        }
        // Derived files before the objects: a damaged index over all packs would make the walk fail
        // although every pack is sound.
        self.check_derived()?;
        for pack in &packs {
            for path in [pack.with_extension("idx"), pack.clone()] {
                if !self.has_right_checksum(&path)? {
                    return malformed(path, "doesn't match its checksum");
                }
            }
        }
        // Last: the walk needs the most memory and time. The checksums have shown that packs are as
        // git wrote them. Only the walk finds objects that are missing altogether.
        let walk = ["--objects", "--quiet", "--all"];
        self.git("rev-list", &walk, Damage::Objects)?;
        Ok(())
    }

    /// Runs git in the mirror and returns its output. A repeated failure of git itself is damage.
    fn git(
        &self,
        subcommand: &str,
        arguments: &[&str],
        damage: impl FnOnce(GitError) -> Damage,
    ) -> Result<Vec<u8>, EarlyEnd> {
        let command = || {
            self.git
                .in_repository(self.mirror, subcommand)
                // With the commit-graph, git would not notice that objects of commits are missing.
                .config("core.commitGraph", false)
                .args(arguments)
                .time_limit(self.limit)
        };
        match command().output() {
            Err(error) if error.exit_code() == Some(FATAL) => {
                // A killed child or a full disk may fail once. So damage needs a working git and a
                // second failure.
                self.check_git()?;
                let again = command().output();
                again.map_err(|_| EarlyEnd::Damage(damage(error)))
            }
            output => Ok(output.map_err(ExamineError::Git)?),
        }
    }

    /// Fails if git doesn't work even in an empty repository.
    fn check_git(&self) -> Result<(), ExamineError> {
        let tmp = tempfile::tempdir().map_err(|source| ExamineError::Io {
            path: std::env::temp_dir(),
            source,
        })?;
        let init = self.git.command("init").args(["--bare", "--quiet"]);
        init.args([tmp.path()]).effect()?;
        let walk = self.git.in_repository(tmp.path(), "rev-list");
        Ok(walk.args(["--objects", "--all"]).effect()?)
    }

    fn check_packed_refs(&self) -> Result<(), EarlyEnd> {
        let path = self.mirror.join("packed-refs");
        if !path.exists() {
            return Ok(());
        }
        let content = read(&path, fs::read)?;
        let is_good = |line: &[u8]| match line {
            [b'#', ..] | [] => true,
            [b'^', id @ ..] => is_id(id, self.id_len),
            line => line
                .split_at_checked(2 * self.id_len)
                .is_some_and(|(id, name)| is_id(id, self.id_len) && name.starts_with(b" refs/")),
        };
        if content.split(|&byte| byte == b'\n').all(is_good) {
            Ok(())
        } else {
            malformed(path, "has an invalid line")
        }
    }

    /// Removes refs that contain no object id, as a crash leaves them. An update fetches them
    /// again.
    fn check_loose_refs(&mut self, directory: &Path) -> Result<(), EarlyEnd> {
        for entry in read(directory, fs::read_dir)? {
            let entry = entry.map_err(|source| early_end(directory, source))?;
            let path = entry.path();
            if read(&path, |_| entry.file_type())?.is_dir() {
                self.check_loose_refs(&path)?;
                continue;
            }
            let content = read(&path, fs::read)?;
            let content = content.trim_ascii_end();
            let is_lock = path.extension() == Some(OsStr::new("lock"));
            if is_lock || is_id(content, self.id_len) || content.starts_with(b"ref: refs/") {
                continue;
            }
            if path.starts_with(self.mirror.join("refs/cachewfs")) {
                // Only a restore from the snapshot can bring back this ref: it keeps objects that
                // upstream has dropped.
                return malformed(path, "contains no object id");
            }
            self.remove(path)?;
        }
        Ok(())
    }

    /// Returns the paths of all packs with an index. A pack without one is incomplete and unused.
    fn packs(&self) -> Result<BTreeSet<PathBuf>, EarlyEnd> {
        let files = self.files_of_packs()?;
        let is_index = |path: &&PathBuf| path.extension() == Some(OsStr::new("idx"));
        let packs = files.iter().filter(is_index);
        Ok(packs.map(|index| index.with_extension("pack")).collect())
    }

    fn files_of_packs(&self) -> Result<BTreeSet<PathBuf>, EarlyEnd> {
        let directory = self.mirror.join("objects/pack");
        let entries = read(&directory, fs::read_dir)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: io::Result<_> = paths.collect();
        paths.map_err(|source| early_end(&directory, source))
    }

    /// Checks the first and last bytes of a pack and of its index, which must match each other.
    fn check_ends(&self, pack: &Path) -> Result<(), EarlyEnd> {
        let index = pack.with_extension("idx");
        let [of_pack, of_index] = [pack, &index].map(|path| {
            read(path, |path| {
                let file = File::open(path)?;
                let len = file.metadata()?.len();
                Ok((file, len))
            })
        });
        let ((pack_file, pack_len), (index_file, index_len)) = (of_pack?, of_index?);
        let id_len = self.id_len as u64;
        if pack_len < 12 + id_len {
            return malformed(pack.to_owned(), "is truncated");
        }
        if index_len < INDEX_HEAD_LEN + 2 * id_len {
            return malformed(index, "is truncated");
        }
        let at = |(file, path): (&File, &Path), at: u64, len: usize| {
            read(path, |_| {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at)?;
                Ok(bytes)
            })
        };
        let in_pack = |place, len| at((&pack_file, pack), place, len);
        let in_index = |place, len| at((&index_file, &index), place, len);
        if in_pack(0, 4)? != b"PACK" || in_index(0, 8)? != b"\xfftOc\0\0\0\x02" {
            return malformed(pack.to_owned(), "is not a pack, or its index is malformed");
        }
        // The index ends with the checksum of its pack and its own. Both files have the number of
        // objects near their beginning.
        let has_same_end = in_pack(pack_len - id_len, self.id_len)?
            == in_index(index_len - 2 * id_len, self.id_len)?;
        let has_same_count = in_pack(8, 4)? == in_index(INDEX_HEAD_LEN - 4, 4)?;
        if has_same_end && has_same_count {
            Ok(())
        } else {
            malformed(pack.to_owned(), "doesn't match its index")
        }
    }

    /// Removes derived files whose checksum is wrong, or that contradict the objects.
    fn check_derived(&mut self) -> Result<(), EarlyEnd> {
        let name = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let is_midx = |path: &Path| name(path).starts_with("multi-pack-index");
        let files = self.files_of_packs()?;
        let mut has_bad_midx = !self.verifies("multi-pack-index")?;
        for path in &files {
            let is_derived = [".rev", ".bitmap"]
                .iter()
                .any(|end| name(path).ends_with(end));
            if !is_derived || self.has_right_checksum(path)? {
                continue;
            }
            if is_midx(path) {
                has_bad_midx = true;
            } else {
                self.remove(path.clone())?;
            }
        }
        // The bitmap and the reverse index over all packs are useless without their
        // multi-pack-index.
        if has_bad_midx {
            for path in files.iter().filter(|path| is_midx(path)) {
                self.remove(path.clone())?;
            }
        }
        if !self.verifies("commit-graph")? {
            for name in ["commit-graph", "commit-graphs"] {
                let path = self.mirror.join("objects/info").join(name);
                if path.exists() {
                    self.remove(path)?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether `git <file> verify` succeeds. It also succeeds if there is no such file.
    fn verifies(&self, file: &str) -> Result<bool, EarlyEnd> {
        let command = self.git.in_repository(self.mirror, file);
        match command.args(["verify"]).time_limit(self.limit).effect() {
            Err(error) if matches!(error.exit_code(), Some(1 | FATAL)) => {
                self.check_git()?;
                Ok(false)
            }
            verified => Ok(verified.map(|()| true).map_err(ExamineError::Git)?),
        }
    }

    fn remove(&mut self, path: PathBuf) -> Result<(), EarlyEnd> {
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        if let Err(source) = removed {
            return Err(ExamineError::Io { path, source }.into());
        }
        self.removed.push(path);
        Ok(())
    }

    /// Returns whether a file of git ends with the checksum of all bytes before it.
    fn has_right_checksum(&self, path: &Path) -> Result<bool, EarlyEnd> {
        let mut file = read(path, File::open)?;
        let len = read(path, |_| file.metadata())?.len();
        let Some(mut left) = len.checked_sub(self.id_len as u64) else {
            return Ok(false);
        };
        let mut hash = GitHash::of_format(self.id_len);
        let mut block = vec![0; BLOCK_LEN];
        while left > 0 {
            if self.git.is_stopping() {
                return Err(ExamineError::Stopping.into());
            }
            let wanted = usize::try_from(left).map_or(BLOCK_LEN, |left| left.min(BLOCK_LEN));
            let part = block.get_mut(..wanted).unwrap_or_default();
            read(path, |_| file.read_exact(part))?;
            hash.update(part);
            left -= part.len() as u64;
        }
        let mut end = Vec::new();
        read(path, |_| file.read_to_end(&mut end))?;
        Ok(end == hash.finish())
    }
}

/// Reads `path` with `read`. Converts the error to damage or to a fault of the machine.
fn read<T>(path: &Path, read: impl FnOnce(PathBuf) -> io::Result<T>) -> Result<T, EarlyEnd> {
    read(path.to_owned()).map_err(|source| early_end(path, source))
}

fn is_id(text: &[u8], id_len: usize) -> bool {
    text.len() == 2 * id_len && ObjectId::is_hex(text)
}

fn malformed<T>(path: PathBuf, what: &'static str) -> Result<T, EarlyEnd> {
    Err(EarlyEnd::Damage(Damage::Malformed { path, what }))
}

/// Decides whether an unreadable file is damage, or a fault of the machine. Too many open files or
/// a missing permission says nothing about the mirror. An I/O error of the disk is damage.
fn early_end(path: &Path, source: io::Error) -> EarlyEnd {
    use ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    let path = path.to_owned();
    let is_of_mirror = matches!(
        source.kind(),
        NotFound | UnexpectedEof | InvalidData | IsADirectory | NotADirectory
    ) || source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    if is_of_mirror {
        EarlyEnd::Damage(Damage::Unreadable { path, source })
    } else {
        EarlyEnd::Error(ExamineError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cachewfs_tests::{git, init_bare};
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Creates a bare repository with a pack and all derived files.
    fn mirror() -> (TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let mirror = root.path().join("mirror.git");
        init_bare(&mirror);
        for number in 0..9 {
            let parent = if number == 0 { "" } else { "-p main" };
            let empty = git(&mirror, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
            let mut arguments = vec!["commit-tree", "-m", "x", empty.trim()];
            arguments.extend(parent.split_whitespace());
            let commit = git(&mirror, &arguments);
            git(&mirror, &["update-ref", "refs/heads/main", commit.trim()]);
        }
        git(&mirror, &["repack", "-adqb", "--write-midx"]);
        let graph = ["commit-graph", "write", "--reachable", "--split"];
        git(&mirror, &graph);
        git(&mirror, &["pack-refs", "--all"]);
        (root, mirror)
    }

    async fn finding(mirror: &Path) -> Finding {
        let git = Git::new("/dev/null".into(), CancellationToken::new());
        let mirror = mirror.to_owned();
        let examination = move || examine(&git, &mirror, Duration::from_mins(1));
        tokio::task::spawn_blocking(examination)
            .await
            .unwrap()
            .unwrap()
    }

    fn packed(mirror: &Path, extension: &str) -> PathBuf {
        let files = fs::read_dir(mirror.join("objects/pack")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let is_it = |path: &PathBuf| {
            path.extension() == Some(OsStr::new(extension))
                && path
                    .file_name()
                    .unwrap()
                    .as_encoded_bytes()
                    .starts_with(b"pack-")
        };
        paths.find(is_it).unwrap()
    }

    fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::remove_file(path).unwrap();
        File::create(path).unwrap().write_all(&bytes).unwrap();
    }

    fn flip(bytes: &mut [u8]) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sound_mirror_stays_as_it_is() {
        let (_root, mirror) = mirror();
        assert!(matches!(finding(&mirror).await, Finding::Sound));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_of_each_file_that_git_needs_is_found() {
        let damages: &[fn(&Path)] = &[
            |mirror| fs::remove_file(mirror.join("HEAD")).unwrap(),
            |mirror| drop(File::create(mirror.join("config")).unwrap()),
            |mirror| {
                let retained = mirror.join("refs/cachewfs/retained");
                fs::create_dir_all(&retained).unwrap();
                File::create(retained.join("12".repeat(20))).unwrap();
            },
            |mirror| {
                overwrite(&mirror.join("packed-refs"), |bytes| {
                    bytes.extend(b"zz refs/x");
                });
            },
            |mirror| overwrite(&packed(mirror, "pack"), |bytes| flip(bytes)),
            |mirror| overwrite(&packed(mirror, "pack"), |bytes| bytes.truncate(40)),
            |mirror| overwrite(&packed(mirror, "pack"), Vec::clear),
            |mirror| overwrite(&packed(mirror, "idx"), |bytes| flip(bytes)),
            |mirror| overwrite(&packed(mirror, "idx"), |bytes| bytes.truncate(500)),
            |mirror| fs::remove_file(packed(mirror, "pack")).unwrap(),
            |mirror| {
                let ghost = format!("{}\n", "12".repeat(20));
                let path = mirror.join("refs/heads/other");
                File::create(path)
                    .unwrap()
                    .write_all(ghost.as_bytes())
                    .unwrap();
            },
        ];
        for (number, damage) in damages.iter().enumerate() {
            let (_root, mirror) = mirror();
            damage(&mirror);

            let finding = finding(&mirror).await;

            assert!(
                matches!(finding, Finding::Damaged(_)),
                "{number}: {finding:?}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damaged_files_that_git_works_without_are_removed() {
        let bitmap = |mirror: &Path| {
            let files = fs::read_dir(mirror.join("objects/pack")).unwrap();
            let mut paths = files.map(|file| file.unwrap().path());
            let is_it = |path: &PathBuf| path.extension() == Some(OsStr::new("bitmap"));
            paths.find(is_it).unwrap()
        };
        let graph = |mirror: &Path| {
            let directory = mirror.join("objects/info/commit-graphs");
            let files = fs::read_dir(directory).unwrap();
            let mut paths = files.map(|file| file.unwrap().path());
            let is_it = |path: &PathBuf| path.extension() == Some(OsStr::new("graph"));
            paths.find(is_it).unwrap()
        };
        for number in 0..4 {
            let (_root, mirror) = mirror();
            match number {
                0 => overwrite(&mirror.join("objects/pack/multi-pack-index"), |bytes| {
                    flip(bytes);
                }),
                1 => overwrite(&bitmap(&mirror), |bytes| flip(bytes)),
                2 => overwrite(&graph(&mirror), |bytes| flip(bytes)),
                _ => drop(File::create(mirror.join("refs/heads/empty")).unwrap()),
            }

            let first = finding(&mirror).await;

            assert!(matches!(first, Finding::Repaired(_)), "{number}: {first:?}");
            assert!(matches!(finding(&mirror).await, Finding::Sound));
        }
    }
}
