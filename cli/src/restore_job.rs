//! [`RestoreJob`]: the steps of `cachewfs restore`.
//!
//! 1. The daemon names the newest snapshot.
//! 2. `git init` makes a repository in a staging directory beside the target. HEAD, its branch and
//!    the configuration are written into it.
//! 3. The objects of HEAD are fetched, and git writes the files. Then the repository is *ready*: it
//!    is shallow, and renamed to the target.
//! 4. The other objects are fetched meanwhile. When they are in place, refs are written, and the
//!    repository is no longer shallow.
//! 5. git fetches what is newer at upstream.
//!
//! If the command ends before, the staging directory keeps the fetched bytes, and the next one goes
//! on from there. If the target is a clone that an earlier restore made, only the objects that it
//! lacks are fetched. git then moves refs and files (`restored`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use cachewfs_format::GitHead;
use cachewfs_fuse::control::protocol::TrafficReport;
use cachewfs_fuse::{ObjectsPart, Restore, RestoreOptions};

use crate::new_clone::{NewClone, branch_of};
use crate::progress::Bar;
use crate::restore_staging::RestoreStaging;
use crate::restored::objects::{add_commit, lacks_objects};
use crate::restored::{POINTERS, RecordedSnapshot, RestoreRecord, Update, UpdateScope, shallow};
use crate::{clone_files, git, output, remote};

/// The configuration with which git writes the files of a new clone: with all processors.
const CHECKOUT_CONFIG: [&str; 4] = [POINTERS[0], POINTERS[1], POINTERS[2], "checkout.workers=0"];

/// How far a restore goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The whole history, at the state of upstream.
    Complete,
    /// HEAD and its files. The clone is shallow if it is new.
    Ready,
    /// HEAD and its files, and the history only if the clone has it.
    Shallow,
    /// The whole history of a clone in which a person may be working.
    History,
}

/// A restore that is under way.
pub(crate) struct RestoreJob<'a> {
    /// The repository and the kind of archive.
    pub(crate) what: String,
    pub(crate) target: &'a Path,
    /// The record of the clone that is at the target already.
    pub(crate) older: Option<RestoreRecord>,
    pub(crate) options: RestoreOptions,
    /// The repository as a URL or name of upstream.
    pub(crate) url: String,
    pub(crate) goal: Goal,
    /// Whether git fetches from upstream at the end.
    pub(crate) is_fetching: bool,
    /// Whether a clone at the target loses what a person changed.
    pub(crate) is_forced: bool,
    /// Whether a line says when the clone is ready.
    pub(crate) is_verbose: bool,
    pub(crate) started: Instant,
}

/// The moment at which git worked in the clone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyMoment {
    pub(crate) after: Duration,
    pub(crate) fetched_bytes: u64,
}

/// A repository that is at the target.
pub(crate) struct Restored {
    pub(crate) snapshot: String,
    pub(crate) traffic: TrafficReport,
    pub(crate) notice: Option<String>,
    /// When HEAD and its files were there, if the history came later or is still missing.
    pub(crate) ready: Option<ReadyMoment>,
    /// Whether git fetched from upstream, if it was asked to.
    pub(crate) up_to_date: Result<()>,
}

impl RestoreJob<'_> {
    /// Restores to the target. `staging` then has nothing of use.
    pub(crate) async fn restore(&self, staging: &RestoreStaging) -> Result<Restored> {
        let bar = Bar::new();
        bar.step("asking for the snapshot");
        let restore = Restore::open(&self.options, |message| {
            bar.step(&format!("waiting for the daemon: {message}"));
        })
        .await?;
        let restored = match &self.older {
            Some(record) => self.update(record, restore, staging, &bar).await,
            // A mirror archive has the files of HEAD in its packs.
            None if self.has_files(&restore)? => self.create(restore, staging, &bar).await,
            None => self.create_without_files(restore, staging, &bar).await,
        };
        bar.finish();
        restored
    }

    /// Makes a new clone, first without the history.
    async fn create(
        &self,
        restore: Restore,
        staging: &RestoreStaging,
        bar: &Bar,
    ) -> Result<Restored> {
        let (tree, commit) = (staging.tree(), restore.commit().to_string());
        let head = restore.head()?;
        let refs = clone_files::head_ref(&restore.packed_refs(), branch_of(&head));
        let upstream_url = self.upstream_url(&restore);
        self.new_clone(&upstream_url, head, &refs)
            .create(&tree)
            .await?;
        let git_dir = tree.join(".git");
        shallow::add(&git_dir, &commit)?;
        let show = |progress: &_| bar.show(progress);
        let places = (&*git_dir, &*git_dir);
        restore
            .write_missing_objects(ObjectsPart::OfHead, places, show)
            .await?;
        add_commit(&restore, &tree).await?;
        let fetched_bytes = restore.traffic().fetched_bytes;
        let write_files = async {
            let arguments = ["-m", "-u", &*commit];
            let written = git::run(&tree, &CHECKOUT_CONFIG, "read-tree", &arguments).await;
            if written.is_err() && lacks_objects(&restore, &tree).await {
                restore
                    .write_missing_objects(ObjectsPart::All, places, show)
                    .await?;
                git::run(&tree, &CHECKOUT_CONFIG, "read-tree", &arguments).await?;
            } else if written.is_err() && restore.notice().is_some() {
                write_possible_files(&tree, &commit).await?;
            } else {
                written?;
            }
            RestoreRecord::new(git_dir.clone())
                .write(&self.recorded(&restore, ObjectsPart::OfHead)?)?;
            staging.publish(self.target)?;
            let ready = ReadyMoment {
                after: self.started.elapsed(),
                fetched_bytes,
            };
            if self.is_verbose && self.goal == Goal::Complete {
                bar.print(&format!(
                    "Ready: {} ({}, {:.1} s). The history follows.",
                    self.target.display(),
                    output::fetched(ready.fetched_bytes),
                    ready.after.as_secs_f64(),
                ))?;
            }
            anyhow::Ok(ready)
        };
        if self.goal != Goal::Complete {
            bar.step("writing the files");
            let ready = write_files.await?;
            return self.end(restore, Some(ready), Ok(())).await;
        }
        // While git writes the files, the rest arrives.
        let fetch = async {
            let fetched = restore.fetch_missing_objects(ObjectsPart::All, &git_dir, show);
            fetched.await.map_err(anyhow::Error::from)
        };
        let (ready, fetched) = tokio::join!(write_files, fetch);
        let ready = ready?;
        fetched?;
        let record = RestoreRecord::new(self.target.join(".git"));
        let up_to_date = self
            .bring(&record, (&restore, staging, bar), UpdateScope::All)
            .await?;
        self.end(restore, Some(ready), up_to_date).await
    }

    /// Makes a new clone of a repository whose HEAD has no commit, or a bare mirror.
    async fn create_without_files(
        &self,
        restore: Restore,
        staging: &RestoreStaging,
        bar: &Bar,
    ) -> Result<Restored> {
        let tree = staging.tree();
        let refs = restore.packed_refs();
        let upstream_url = self.upstream_url(&restore);
        let clone = self.new_clone(&upstream_url, restore.head()?, &refs);
        let git_dir = if self.options.is_bare {
            clone.create_bare(&tree).await?;
            tree.clone()
        } else {
            clone.create(&tree).await?;
            tree.join(".git")
        };
        let show = |progress: &_| bar.show(progress);
        restore
            .write_missing_objects(ObjectsPart::All, (&git_dir, &git_dir), show)
            .await?;
        RestoreRecord::new(git_dir.clone()).write(&self.recorded(&restore, ObjectsPart::All)?)?;
        staging.publish(self.target)?;
        let up_to_date = if self.is_fetching {
            bar.step("fetching from upstream");
            git::run(self.target, &[], "fetch", &["--quiet", "origin"]).await
        } else {
            Ok(())
        };
        self.end(restore, None, up_to_date).await
    }

    /// Returns whether git writes the files of HEAD.
    fn has_files(&self, restore: &Restore) -> Result<bool> {
        let may_have = restore.has_work_tree() || self.options.from.is_some();
        let head = restore.head()?;
        let is_born = match branch_of(&head) {
            Some(branch) => !clone_files::head_ref(&restore.packed_refs(), Some(branch)).is_empty(),
            None => true,
        };
        Ok(may_have && is_born && !self.options.is_bare)
    }

    fn upstream_url(&self, restore: &Restore) -> String {
        remote::origin_url(&self.url, &self.options.repo, restore.upstream_url())
    }

    fn new_clone<'a>(
        &'a self,
        upstream_url: &'a str,
        upstream_head: GitHead,
        refs: &'a [u8],
    ) -> NewClone<'a> {
        NewClone {
            repo: &self.options.repo,
            upstream_url,
            upstream_head,
            refs,
            chosen: None,
            settings: "",
        }
    }

    /// Brings the clone at the target to the snapshot, and to the state of upstream.
    async fn update(
        &self,
        record: &RestoreRecord,
        restore: Restore,
        staging: &RestoreStaging,
        bar: &Bar,
    ) -> Result<Restored> {
        let is_shallow = shallow::is_shallow(&record.git_dir);
        let scope = match self.goal {
            Goal::Ready | Goal::Shallow if is_shallow => UpdateScope::Head,
            Goal::History => UpdateScope::History,
            Goal::Complete | Goal::Ready | Goal::Shallow => UpdateScope::All,
        };
        let brought = self.bring(record, (&restore, staging, bar), scope);
        let up_to_date = brought.await?;
        let ready = (scope == UpdateScope::Head).then(|| ReadyMoment {
            after: self.started.elapsed(),
            fetched_bytes: restore.traffic().fetched_bytes,
        });
        self.end(restore, ready, up_to_date).await
    }

    /// Fetches the objects that the clone lacks, and moves the clone to the snapshot. Returns
    /// whether it could then be brought to the state of upstream.
    async fn bring(
        &self,
        record: &RestoreRecord,
        (restore, staging, bar): (&Restore, &RestoreStaging, &Bar),
        scope: UpdateScope,
    ) -> Result<Result<()>> {
        let part = match scope {
            UpdateScope::Head => ObjectsPart::OfHead,
            UpdateScope::All | UpdateScope::History => ObjectsPart::All,
        };
        let staged = staging.tree();
        let places = (&*record.git_dir, &*staged);
        restore
            .write_missing_objects(part, places, |progress| bar.show(progress))
            .await?;
        bar.step("updating the clone");
        let update = Update {
            tree: self.target,
            record,
            is_bare: self.options.is_bare,
            is_forced: self.is_forced,
            scope,
        };
        let recorded = self.recorded(restore, part)?;
        update.apply((restore, &staged), &recorded).await?;
        if scope == UpdateScope::Head {
            return Ok(Ok(()));
        }
        // A commit can also be in the mirror for a ref that isn't published.
        let wanted = &self.options.wanted.commits;
        let reached = update.check_reached(wanted, &recorded).await;
        if reached.is_err() || !self.is_fetching {
            return Ok(reached);
        }
        bar.step("fetching from upstream");
        let fetched = git::run(self.target, &[], "fetch", &["--quiet", "origin"]).await;
        if fetched.is_err() || self.options.is_bare || scope == UpdateScope::History {
            return Ok(fetched);
        }
        match branch_of(&recorded.head) {
            Some(branch) => Ok(update.follow(branch).await),
            None => Ok(Ok(())),
        }
    }

    async fn end(
        &self,
        restore: Restore,
        ready: Option<ReadyMoment>,
        up_to_date: Result<()>,
    ) -> Result<Restored> {
        Ok(Restored {
            snapshot: restore.snapshot().to_string(),
            notice: restore.notice().map(str::to_owned),
            traffic: restore.finish().await?,
            ready,
            up_to_date,
        })
    }

    /// Returns what the record says of a snapshot of which `part` is restored.
    fn recorded(&self, restore: &Restore, part: ObjectsPart) -> Result<RecordedSnapshot> {
        let (head, refs) = (restore.head()?, restore.packed_refs());
        let branch = branch_of(&head);
        Ok(RecordedSnapshot {
            what: self.what.clone(),
            refs: match part {
                _ if self.options.is_bare => refs.to_vec(),
                ObjectsPart::All => clone_files::packed_refs(&refs, branch),
                ObjectsPart::OfHead => {
                    clone_files::packed_refs(&clone_files::head_ref(&refs, branch), branch)
                }
            },
            head,
        })
    }
}

/// Writes the index, and the files that this filesystem can have. `read-tree -u` ends at the first
/// file that it can't have, such as a link to an empty path.
async fn write_possible_files(tree: &Path, commit: &str) -> Result<()> {
    git::run(tree, &CHECKOUT_CONFIG, "read-tree", &["--reset", commit]).await?;
    // It goes on after a file that it can't write, and fails at the end.
    let arguments = ["--all", "--force", "--quiet"];
    let written = git::run(tree, &CHECKOUT_CONFIG, "checkout-index", &arguments).await;
    if let Err(error) = written {
        tracing::debug!(error = format!("{error:#}"), "Some files are left out");
    }
    Ok(())
}
