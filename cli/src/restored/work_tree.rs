//! Moves the files of a work tree from one commit to another, and overwrites nothing that a person
//! changed.
//!
//! git writes the files, with an index of its own, which replaces the index of the clone at the
//! end. So a process that is killed leaves no lock, and a clone in which some files differ from
//! HEAD. The next process recognises these files, and puts them back before it moves on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::RestoreRecord;
use crate::error::CliError;
use crate::git::Call;

/// The configuration with which git writes files: Git LFS files are pointers. Each of them could
/// cost a request to upstream.
///
/// git writes one file after the other, which is its default. With several processes, it removes
/// all old files before it writes the first one, and a kill would leave the work tree without them.
pub(crate) const POINTERS: [&str; 3] = [
    "filter.lfs.process=",
    "filter.lfs.smudge=",
    "filter.lfs.required=false",
];
/// At most this many paths are named in an error.
const NAMED: usize = 5;

/// A move from one commit to another.
#[derive(Debug)]
pub(super) struct WorkTreeMove<'a> {
    pub(super) tree: &'a Path,
    pub(super) record: &'a RestoreRecord,
    /// The commit of HEAD, or the empty tree.
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

/// A file of a commit: git's mode and the id, or `None` if the commit lacks it.
type Entry = Option<(String, String)>;

/// A path that two commits have with different files.
#[derive(Debug, Default)]
struct Change {
    from: Entry,
    to: Entry,
    /// The file of the commit to which a killed process moved.
    interrupted: Entry,
}

impl WorkTreeMove<'_> {
    /// Moves the files. Overwrites changes of a person.
    pub(super) async fn force(&self) -> Result<()> {
        let index = self.new_index()?;
        self.note()?;
        self.git(&index, "read-tree", &["--reset", "-u", self.to], b"")
            .await?;
        self.take_over(&index)
    }

    /// Moves the files. Fails before it writes anything if a change of a person is in the way.
    pub(super) async fn write(&self) -> Result<()> {
        let index = self.new_index()?;
        let interrupted = self.record.moving();
        let mut changes = BTreeMap::new();
        for (path, (from, to)) in self.diff(self.to).await? {
            let interrupted = None;
            let change = Change {
                from,
                to,
                interrupted,
            };
            changes.insert(path, change);
        }
        if let Some(interrupted) = &interrupted {
            for (path, (from, to)) in self.diff(interrupted).await? {
                let unchanged = || Change {
                    to: from.clone(),
                    from,
                    interrupted: None,
                };
                changes.entry(path).or_insert_with(unchanged).interrupted = to;
            }
        }
        let (mut in_the_way, changed) = self.changed(&index, &changes).await?;
        let own = self.own(&changes, changed, interrupted.as_deref());
        let (own, foreign) = own.await?;
        in_the_way.extend(foreign);
        if self.record.git_dir.join("index.lock").exists() {
            in_the_way.insert(b".git/index.lock".to_vec());
        }
        if !in_the_way.is_empty() {
            return Err(self.refusal(&in_the_way).into());
        }
        self.note()?;
        self.put_back(&index, &changes, &own).await?;
        let arguments = ["-m", "-u", self.from, self.to];
        self.git(&index, "read-tree", &arguments, b"").await?;
        self.take_over(&index)
    }

    /// Copies the index of the clone, for git to work with.
    fn new_index(&self) -> Result<PathBuf> {
        let index = self.record.index_path();
        let copy = || {
            // The lock is that of a git that was killed: the caller has locked the record.
            for left in [&index.with_extension("lock"), &index] {
                match fs::remove_file(left) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            match fs::copy(self.record.git_dir.join("index"), &index) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        copy().with_context(|| format!("can't write {}", index.display()))?;
        Ok(index)
    }

    /// Notes the move, for the process that goes on if this one is killed.
    fn note(&self) -> Result<()> {
        let path = self.record.moving_path();
        let written =
            fs::File::create(&path).and_then(|mut file| file.write_all(self.to.as_bytes()));
        written.with_context(|| format!("can't write {}", path.display()))
    }

    fn take_over(&self, index: &Path) -> Result<()> {
        let to = self.record.git_dir.join("index");
        fs::rename(index, &to).with_context(|| format!("can't write {}", to.display()))
    }

    async fn git(
        &self,
        index: &Path,
        subcommand: &str,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>> {
        let writes = matches!(subcommand, "read-tree" | "checkout-index");
        let call = Call {
            config: if writes { &POINTERS } else { &[] },
            index: Some(index),
            input,
            ..Call::new(self.tree, subcommand, arguments)
        };
        call.output().await
    }

    /// Returns the files that differ between HEAD and `commit`, with both states.
    async fn diff(&self, commit: &str) -> Result<Vec<(Vec<u8>, (Entry, Entry))>> {
        let arguments = ["-r", "-z", "--raw", "--no-renames", self.from, commit];
        let said = Call::new(self.tree, "diff-tree", &arguments)
            .output()
            .await?;
        Ok(parse_raw(&said))
    }

    /// Returns the paths of `changes` that differ from HEAD in the index or the work tree, and
    /// the files that are neither in HEAD nor among `changes`, but in the way of one.
    async fn changed(
        &self,
        index: &Path,
        changes: &BTreeMap<Vec<u8>, Change>,
    ) -> Result<(BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>)> {
        let arguments = [
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=no",
            "--ignore-submodules=dirty",
        ];
        let said = self.git(index, "status", &arguments, b"").await?;
        let mut in_the_way = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for line in said.split(|&byte| byte == 0) {
            let (Some(state), Some(path)) = (line.get(..2), line.get(3..)) else {
                continue;
            };
            // git moves no work tree while a conflict is unresolved.
            if state.contains(&b'U') || matches!(state, b"AA" | b"DD") {
                in_the_way.insert(path.to_vec());
            } else if changes.contains_key(path) {
                changed.insert(path.to_vec());
            }
        }
        for (path, change) in changes {
            if change.from.is_some() {
                continue;
            }
            for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let above = &path[..end];
                match self.at(above).symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() => {}
                    Ok(_)
                        if changes
                            .get(above)
                            .is_some_and(|change| change.from.is_some()) =>
                    {
                        break;
                    }
                    Ok(_) => {
                        in_the_way.insert(above.to_vec());
                    }
                    Err(_) => break,
                }
            }
            match self.at(path).symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    let below = [b":(literal)", &**path].concat();
                    let below = String::from_utf8_lossy(&below).into_owned();
                    let arguments = ["-z", "--others", "--", &below];
                    let others = self.git(index, "ls-files", &arguments, b"").await?;
                    let others = others.split(|&byte| byte == 0);
                    let others = others.filter(|other| !other.is_empty());
                    // An untracked file can be one that a killed process wrote.
                    for other in others {
                        if changes.contains_key(other) {
                            changed.insert(other.to_vec());
                        } else {
                            in_the_way.insert(other.to_vec());
                        }
                    }
                }
                Ok(_) => {
                    changed.insert(path.clone());
                }
                Err(_) => {}
            }
        }
        Ok((in_the_way, changed))
    }

    /// Divides `changed` into the files that an earlier process wrote, and those of a person. A
    /// file that is missing is neither: nothing can get lost.
    async fn own(
        &self,
        changes: &BTreeMap<Vec<u8>, Change>,
        changed: BTreeSet<Vec<u8>>,
        interrupted: Option<&str>,
    ) -> Result<(BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>)> {
        let (mut own, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        let ids = self.ids(&changed).await?;
        for path in changed {
            let Some(change) = changes.get(&path) else {
                continue;
            };
            if self.at(&path).symlink_metadata().is_err() {
                own.insert(path);
                continue;
            }
            let id = ids.get(&path);
            let is_of = |entry: &Entry| entry.as_ref().map(|(_, id)| id) == id && id.is_some();
            let is_own = is_of(&change.to)
                || is_of(&change.interrupted)
                || match (&change.interrupted, interrupted) {
                    (Some(_), Some(commit)) => self.is_partial(commit, &path).await,
                    _ => false,
                };
            if is_own {
                own.insert(path);
            } else {
                foreign.insert(path);
            }
        }
        Ok((own, foreign))
    }

    /// Returns the ids that git would give the files.
    async fn ids(&self, paths: &BTreeSet<Vec<u8>>) -> Result<BTreeMap<Vec<u8>, String>> {
        let mut ids = BTreeMap::new();
        let mut files = Vec::new();
        for path in paths {
            let Ok(metadata) = self.at(path).symlink_metadata() else {
                continue;
            };
            if metadata.is_symlink() {
                let target = fs::read_link(self.at(path))?;
                let call = Call {
                    input: target.as_os_str().as_bytes(),
                    ..Call::new(self.tree, "hash-object", &["--stdin", "--no-filters"])
                };
                let id = call.output().await?;
                ids.insert(path.clone(), String::from_utf8_lossy(&id).trim().to_owned());
            } else if metadata.is_file() && !path.contains(&b'\n') && !path.starts_with(b"\"") {
                files.push(path.clone());
            }
        }
        if !files.is_empty() {
            let input = [files.join(&b'\n'), b"\n".to_vec()].concat();
            let call = Call {
                input: &input,
                ..Call::new(self.tree, "hash-object", &["--stdin-paths"])
            };
            let said = call.output().await?;
            let said = String::from_utf8_lossy(&said);
            ids.extend(files.into_iter().zip(said.lines().map(str::to_owned)));
        }
        Ok(ids)
    }

    /// Returns whether a file is the beginning of the file that git was writing when it was killed.
    async fn is_partial(&self, commit: &str, path: &[u8]) -> bool {
        let (Ok(content), Ok(name)) = (fs::read(self.at(path)), std::str::from_utf8(path)) else {
            return false;
        };
        let object = format!("{commit}:{name}");
        let arguments = ["--filters", &object];
        let whole = Call::new(self.tree, "cat-file", &arguments).output().await;
        whole.is_ok_and(|whole| whole.starts_with(&content))
    }

    /// Gives the files that an earlier process wrote their state of HEAD again.
    async fn put_back(
        &self,
        index: &Path,
        changes: &BTreeMap<Vec<u8>, Change>,
        own: &BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        let (mut entries, mut files) = (Vec::new(), Vec::new());
        for path in own {
            let change = changes.get(path);
            if let Some((mode, id)) = change.and_then(|change| change.from.as_ref()) {
                entries.extend(format!("{mode} {id}\t").into_bytes());
                files.extend([path, &b"\0"[..]].concat());
            } else {
                entries.extend(format!("0 {}\t", "0".repeat(self.to.len())).into_bytes());
                self.remove(path)?;
            }
            entries.extend([path, &b"\0"[..]].concat());
        }
        if !entries.is_empty() {
            let arguments = ["-z", "--index-info"];
            self.git(index, "update-index", &arguments, &entries)
                .await?;
        }
        if !files.is_empty() {
            let arguments = ["-f", "-u", "-z", "--stdin"];
            self.git(index, "checkout-index", &arguments, &files)
                .await?;
        }
        Ok(())
    }

    /// Removes a file, and the directories above it that are empty then.
    fn remove(&self, path: &[u8]) -> Result<()> {
        let at = self.at(path);
        match fs::remove_file(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed.with_context(|| format!("can't remove {}", at.display()))?,
        }
        let above = at.ancestors().skip(1);
        for directory in above.take_while(|directory| *directory != self.tree) {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.tree.join(OsStr::from_bytes(path))
    }

    fn refusal(&self, paths: &BTreeSet<Vec<u8>>) -> CliError {
        let named = paths.iter().take(NAMED);
        let named: Vec<_> = named.map(|path| String::from_utf8_lossy(path)).collect();
        let more = paths.len().saturating_sub(NAMED);
        CliError::ChangesInTheWay {
            directory: self.tree.display().to_string(),
            paths: if more == 0 {
                named.join(", ")
            } else {
                format!("{} and {more} more", named.join(", "))
            },
        }
    }
}

/// Parses the output of `git diff-tree -z --raw`.
fn parse_raw(said: &[u8]) -> Vec<(Vec<u8>, (Entry, Entry))> {
    let mut fields = said.split(|&byte| byte == 0);
    let mut changes = Vec::new();
    while let (Some(states), Some(path)) = (fields.next(), fields.next()) {
        let states = String::from_utf8_lossy(states);
        let mut states = states.trim_start_matches(':').split(' ');
        let mut next = || states.next().unwrap_or_default().to_owned();
        let [from_mode, to_mode, from_id, to_id] = [next(), next(), next(), next()];
        let entry = |mode: String, id| (mode != "000000").then_some((mode, id));
        changes.push((
            path.to_vec(),
            (entry(from_mode, from_id), entry(to_mode, to_id)),
        ));
    }
    changes
}
