//! [`Update`]: where HEAD and the refs of a restored clone go.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use cachewfs_format::GitHead;
use cachewfs_fuse::{ObjectsPart, Restore};

use super::objects::{add_commit, lacks_objects, move_objects, release_packs};
use super::refs::{self, History, RefStates, Refs};
use super::work_tree::WorkTreeMove;
use super::{RecordedSnapshot, RestoreRecord, shallow};
use crate::error::CliError;
use crate::git::{self, Call};
use crate::new_clone::branch_of;

/// An update of a clone that an earlier restore made.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    /// The work tree, or a bare repository.
    pub(crate) tree: &'a Path,
    pub(crate) record: &'a RestoreRecord,
    pub(crate) is_bare: bool,
    /// Whether changes and commits of a person may be overwritten.
    pub(crate) is_forced: bool,
    pub(crate) scope: UpdateScope,
}

/// The parts of a clone that an update brings to the state of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateScope {
    /// HEAD with its files, all refs and the whole history.
    All,
    /// HEAD with its files. The clone is shallow, and stays so.
    Head,
    /// All refs but HEAD, and the whole history. A person may be working on the files.
    History,
}

/// HEAD of the clone.
#[derive(Debug)]
struct LocalHead {
    /// The full name of its branch, or `None` if it is detached.
    branch: Option<Vec<u8>>,
    commit: Option<String>,
}

impl Update<'_> {
    /// Moves the objects that are in `staged` into the clone, and the clone to `new`.
    pub(crate) async fn apply(
        &self,
        (restore, staged): (&Restore, &Path),
        new: &RecordedSnapshot,
    ) -> Result<()> {
        move_objects(staged, &self.record.git_dir)?;
        if self.scope == UpdateScope::Head {
            add_commit(restore, self.tree).await?;
            if lacks_objects(restore, self.tree).await {
                let places = (&*self.record.git_dir, staged);
                let all = ObjectsPart::All;
                restore.write_missing_objects(all, places, |_| ()).await?;
                move_objects(staged, &self.record.git_dir)?;
            }
        }
        let old = self.record.read()?;
        let (old_refs, new_refs) = (refs::parse(&old.refs), refs::parse(&new.refs));
        let local = refs::local(self.tree).await?;
        let head = self.head().await;
        let states = RefStates {
            old: &old_refs,
            local: &local,
            new: &new_refs,
        };
        let branch = branch_name(&new.head);
        let own_branch = branch.as_ref().and_then(|name| local.get(name));
        let heads = head.commit.iter().chain(own_branch);
        let moved = states.moved(self.is_bare).chain(heads.clone());
        let newer = refs::not_in(self.tree, moved, &new_refs, History::AsKnown).await?;
        let mut changes = states.changes(self.is_bare, &newer);
        if self.scope == UpdateScope::History {
            for name in [branch_name(&old.head), branch].into_iter().flatten() {
                changes.keep(&name);
            }
        } else if !self.is_bare {
            self.refuse_other_branch(&head, [&old.head, &new.head])?;
            let old_head = commit_of(&old.head, &old_refs);
            let to = commit_of(&new.head, &new_refs);
            let mut has_newer = false;
            for commit in heads.filter(|commit| newer.contains(*commit)) {
                if Some(commit) == old_head.as_ref() {
                    continue;
                }
                has_newer = true;
                self.refuse_own_commits(commit, &head).await?;
            }
            // A fetch from upstream has brought HEAD further than the snapshot is.
            let stays = has_newer && !self.is_forced;
            // No local branch is deleted, even if upstream has another default branch now.
            if let Some(name) = branch_name(&old.head) {
                changes.keep(&name);
            }
            if let Some(name) = branch {
                changes.keep(&name);
                if let Some(to) = to.clone().filter(|_| !stays)
                    && own_branch != Some(&to)
                {
                    changes.set(name.clone(), (own_branch.cloned(), to));
                }
            }
            if let Some(to) = to.filter(|_| !stays) {
                self.move_files(&head, &to).await?;
            }
        }
        if self.scope == UpdateScope::Head {
            shallow::add(&self.record.git_dir, &restore.commit().to_string())?;
        }
        if !self.replace_packed_refs(&states, (&old.refs, &new.refs))? {
            changes.write(self.tree).await?;
        }
        if self.scope != UpdateScope::History {
            self.write_head(&head, (&old, new)).await?;
            self.record.end_move()?;
        }
        if self.scope != UpdateScope::Head {
            shallow::complete(self.tree, &self.record.git_dir, &new_refs).await?;
        }
        self.record.write(new)?;
        if self.scope != UpdateScope::Head {
            release_packs(&self.record.git_dir, &restore.packs());
        }
        Ok(())
    }

    /// Replaces `packed-refs` if no ref was changed since the restore wrote it, and the snapshot
    /// only adds refs. Returns whether it did. git would write a file for each ref.
    fn replace_packed_refs(
        &self,
        states: &RefStates<'_>,
        (old, new): (&[u8], &[u8]),
    ) -> Result<bool> {
        let adds = |(name, id)| states.new.get(name) == Some(id);
        if states.local != states.old || !states.old.iter().all(adds) {
            return Ok(false);
        }
        let path = self.record.git_dir.join("packed-refs");
        let lock = path.with_extension("lock");
        let replace = || {
            // git's own lock: until the rename, no git changes the file.
            let mut file = File::create_new(&lock)?;
            let is_unchanged = fs::read(&path)? == old;
            if is_unchanged {
                file.write_all(new)?;
                fs::rename(&lock, &path)?;
            } else {
                fs::remove_file(&lock)?;
            }
            Ok::<_, io::Error>(is_unchanged)
        };
        match replace() {
            // Another git is at work, or was killed: git says so when it changes the refs.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            replaced => replaced.with_context(|| format!("can't write {}", path.display())),
        }
    }

    /// Moves HEAD's branch and the files to the state of the branch at upstream, after a fetch.
    pub(crate) async fn follow(&self, branch: &[u8]) -> Result<()> {
        let local = refs::local(self.tree).await?;
        let upstream = [b"refs/remotes/origin/", branch].concat();
        let Some(to) = local.get(&upstream) else {
            return Ok(());
        };
        let head = self.head().await;
        let name = [b"refs/heads/", branch].concat();
        if head.commit.as_ref() == Some(to) || head.branch.as_ref() != Some(&name) {
            return Ok(());
        }
        self.move_files(&head, to).await?;
        let mut changes = refs::RefChanges::default();
        changes.set(name.clone(), (local.get(&name).cloned(), to.clone()));
        changes.write(self.tree).await?;
        self.record.end_move()
    }

    /// Fails unless a ref of the snapshot reaches all of `commits`.
    pub(crate) async fn check_reached(
        &self,
        commits: &[String],
        new: &RecordedSnapshot,
    ) -> Result<()> {
        let refs = refs::parse(&new.refs);
        for commit in commits {
            let arguments = ["-e", &**commit];
            let is_there = Call::new(self.tree, "cat-file", &arguments).output();
            let is_reached = is_there.await.is_ok() && {
                let commits = std::iter::once(commit);
                let missing = refs::not_in(self.tree, commits, &refs, History::AsKnown);
                missing.await?.is_empty()
            };
            if !is_reached {
                return Err(CliError::CommitNotReached {
                    directory: self.tree.display().to_string(),
                    commit: commit.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    async fn move_files(&self, head: &LocalHead, to: &str) -> Result<()> {
        let from = match &head.commit {
            Some(commit) if commit == to && !self.is_forced => return Ok(()),
            Some(commit) => commit.clone(),
            // The empty tree.
            None => {
                let arguments = ["-t", "tree", "--stdin"];
                let id = Call::new(self.tree, "hash-object", &arguments)
                    .output()
                    .await?;
                String::from_utf8_lossy(&id).trim().to_owned()
            }
        };
        let files = WorkTreeMove {
            tree: self.tree,
            record: self.record,
            from: &from,
            to,
        };
        if self.is_forced {
            files.force().await
        } else {
            files.write().await
        }
    }

    async fn head(&self) -> LocalHead {
        let trimmed = |said: Vec<u8>| said.trim_ascii_end().to_vec();
        let ask = async |subcommand, arguments: &[&str]| {
            let said = Call::new(self.tree, subcommand, arguments).output().await;
            said.ok().map(trimmed)
        };
        LocalHead {
            branch: ask("symbolic-ref", &["-q", "HEAD"]).await,
            commit: ask("rev-parse", &["-q", "--verify", "HEAD^{commit}"])
                .await
                .map(|id| String::from_utf8_lossy(&id).into_owned()),
        }
    }

    /// Fails if upstream had `commit` at no fetch: a person made it.
    async fn refuse_own_commits(&self, commit: &str, head: &LocalHead) -> Result<()> {
        if self.is_forced {
            return Ok(());
        }
        let arguments = ["-n", "1", commit, "--not", "--remotes=origin", "--tags"];
        let own = Call::new(self.tree, "rev-list", &arguments)
            .output()
            .await?;
        if own.is_empty() {
            return Ok(());
        }
        let branch = head.branch.as_deref().unwrap_or(b"HEAD");
        let branch = branch.strip_prefix(b"refs/heads/").unwrap_or(branch);
        Err(CliError::OwnCommits {
            directory: self.tree.display().to_string(),
            branch: String::from_utf8_lossy(branch).into_owned(),
        }
        .into())
    }

    /// Fails if a person switched to a branch of their own.
    fn refuse_other_branch(&self, head: &LocalHead, expected: [&GitHead; 2]) -> Result<()> {
        let is_expected = |expected: &GitHead| head.branch == branch_name(expected);
        if self.is_forced || expected.into_iter().any(is_expected) {
            return Ok(());
        }
        let name = |branch: Option<Vec<u8>>| match branch {
            Some(name) => {
                let short = name.strip_prefix(b"refs/heads/").unwrap_or(&name);
                String::from_utf8_lossy(short).into_owned()
            }
            None => "no branch".to_owned(),
        };
        Err(CliError::OtherBranch {
            directory: self.tree.display().to_string(),
            found: name(head.branch.clone()),
            expected: name(branch_name(expected[1])),
        }
        .into())
    }

    /// Writes HEAD, if it isn't where the snapshot has it.
    async fn write_head(
        &self,
        head: &LocalHead,
        (old, new): (&RecordedSnapshot, &RecordedSnapshot),
    ) -> Result<()> {
        let is_unchanged = self.is_bare && head.branch != branch_name(&old.head);
        match &new.head {
            _ if is_unchanged && !self.is_forced => Ok(()),
            GitHead::Detached(id) => {
                let id = id.to_string();
                let arguments = ["--no-deref", "-m", "cachewfs restore", "HEAD", &id];
                git::run(self.tree, &[], "update-ref", &arguments).await
            }
            GitHead::Branch(_) => {
                let Some(name) = branch_name(&new.head) else {
                    return Ok(());
                };
                if head.branch.as_ref() == Some(&name) {
                    return Ok(());
                }
                let name = String::from_utf8_lossy(&name).into_owned();
                let arguments = ["-m", "cachewfs restore", "HEAD", &name];
                git::run(self.tree, &[], "symbolic-ref", &arguments).await
            }
        }
    }
}

/// Returns the full name of the branch that HEAD names.
fn branch_name(head: &GitHead) -> Option<Vec<u8>> {
    branch_of(head).map(|branch| [b"refs/heads/", branch].concat())
}

/// Returns the commit of HEAD, or `None` if its branch doesn't exist.
fn commit_of(head: &GitHead, refs: &Refs) -> Option<String> {
    match head {
        GitHead::Branch(_) => refs.get(&branch_name(head)?).cloned(),
        GitHead::Detached(id) => Some(id.to_string()),
    }
}
