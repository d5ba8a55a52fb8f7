//! [`RestoreJob`]: the steps of `cachewfs restore`.
//!
//! 1. The daemon names the newest snapshot.
//! 2. `git init` makes a repository in a staging directory beside the target. HEAD, refs and
//!    configuration are written into it.
//! 3. The objects, the index and the work tree are fetched and written.
//! 4. git fetches what is newer at upstream.
//! 5. The repository is renamed to the target.
//!
//! If the command ends before, the staging directory keeps what was fetched, and the next one goes
//! on from there.
//!
//! If the target is a clone that an earlier restore made, only the objects that it lacks are
//! fetched. git then moves refs and files (`restored`).

use std::path::Path;

use anyhow::{Context as _, Result};
use cachewfs_fuse::control::protocol::TrafficReport;
use cachewfs_fuse::{Restore, RestoreOptions, RestorePlace};

use crate::clone_files::RESTORED_SETTINGS;
use crate::new_clone::{HeadState, NewClone, branch_of};
use crate::progress::Bar;
use crate::restore_staging::RestoreStaging;
use crate::restored::{RecordedSnapshot, RestoreRecord, Update};
use crate::{clone_files, git, remote};

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
    /// Whether git fetches from upstream at the end.
    pub(crate) is_fetching: bool,
    /// Whether a clone at the target loses what a person changed.
    pub(crate) is_forced: bool,
}

/// A repository that is complete in the staging directory.
pub(crate) struct Restored {
    pub(crate) snapshot: String,
    pub(crate) traffic: TrafficReport,
    pub(crate) notice: Option<String>,
    /// Whether git fetched from upstream, if it was asked to.
    pub(crate) up_to_date: Result<()>,
}

impl RestoreJob<'_> {
    pub(crate) async fn restore(&self, staging: &RestoreStaging) -> Result<Restored> {
        let bar = Bar::new();
        bar.step("asking for the snapshot");
        let restore = Restore::open(&self.options, |message| {
            bar.step(&format!("waiting for the daemon: {message}"));
        })
        .await?;
        let restored = match &self.older {
            Some(record) => self.update(record, restore, staging, &bar).await,
            None => self.create(restore, staging, &bar).await,
        };
        bar.finish();
        restored
    }

    /// Makes a new clone in the staging directory.
    async fn create(
        &self,
        restore: Restore,
        staging: &RestoreStaging,
        bar: &Bar,
    ) -> Result<Restored> {
        let repo = &self.options.repo;
        let tree = staging.tree();
        let refs = restore.packed_refs();
        let clone = NewClone {
            repo,
            upstream_url: &remote::origin_url(&self.url, repo, restore.upstream_url()),
            upstream_head: restore.head()?,
            refs: &refs,
            chosen: None,
            settings: RESTORED_SETTINGS,
        };
        let mut head = HeadState::Commit;
        let place = if self.options.is_bare {
            clone.create_bare(&tree).await?;
            RestorePlace {
                work_tree: None,
                git_dir: tree.clone(),
            }
        } else {
            head = clone.create(&tree).await?;
            RestorePlace {
                work_tree: Some(tree.clone()).filter(|_| restore.has_work_tree()),
                git_dir: tree.join(".git"),
            }
        };
        let snapshot = restore.snapshot().to_string();
        let notice = restore.notice().map(str::to_owned);
        let recorded = self.recorded(&restore)?;
        let traffic = restore.write(&place, |progress| bar.show(progress)).await?;
        RestoreRecord::new(place.git_dir).write(&recorded)?;
        let up_to_date = if self.is_fetching {
            bar.step("fetching from upstream");
            let branch = branch_of(&clone.upstream_head);
            let branch = branch.filter(|_| !self.options.is_bare && head == HeadState::Commit);
            fetch(&tree, branch).await
        } else {
            Ok(())
        };
        Ok(Restored {
            snapshot,
            traffic,
            notice,
            up_to_date,
        })
    }

    /// Brings the clone at the target to the snapshot, and to the state of upstream.
    async fn update(
        &self,
        record: &RestoreRecord,
        restore: Restore,
        staging: &RestoreStaging,
        bar: &Bar,
    ) -> Result<Restored> {
        let staged = staging.tree();
        restore
            .write_missing_objects((&record.git_dir, &staged), |progress| bar.show(progress))
            .await?;
        bar.step("updating the clone");
        let update = Update {
            tree: self.target,
            record,
            is_bare: self.options.is_bare,
            is_forced: self.is_forced,
        };
        let recorded = self.recorded(&restore)?;
        update.apply((&restore, &staged), &recorded).await?;
        let up_to_date = if self.is_fetching {
            bar.step("fetching from upstream");
            self.catch_up(&update, &recorded).await
        } else {
            Ok(())
        };
        Ok(Restored {
            snapshot: restore.snapshot().to_string(),
            notice: restore.notice().map(str::to_owned),
            traffic: restore.finish().await?,
            up_to_date,
        })
    }

    async fn catch_up(&self, update: &Update<'_>, recorded: &RecordedSnapshot) -> Result<()> {
        git::run(self.target, &[], "fetch", &["--quiet", "origin"]).await?;
        match branch_of(&recorded.head).filter(|_| !self.options.is_bare) {
            Some(branch) => update.follow(branch).await,
            None => Ok(()),
        }
    }

    /// Returns what the record says of a restored snapshot.
    fn recorded(&self, restore: &Restore) -> Result<RecordedSnapshot> {
        let (head, refs) = (restore.head()?, restore.packed_refs());
        Ok(RecordedSnapshot {
            what: self.what.clone(),
            refs: if self.options.is_bare {
                refs.to_vec()
            } else {
                clone_files::packed_refs(&refs, branch_of(&head))
            },
            head,
        })
    }
}

/// Fetches from upstream, and moves HEAD's branch and the files to its state there.
async fn fetch(tree: &Path, branch: Option<&[u8]>) -> Result<()> {
    git::run(tree, &[], "fetch", &["--quiet", "origin"]).await?;
    let Some(branch) = branch.and_then(|branch| std::str::from_utf8(branch).ok()) else {
        return Ok(());
    };
    let upstream = format!("refs/remotes/origin/{branch}");
    let arguments = ["--quiet", "--hard", "--no-recurse-submodules", &upstream];
    // Nobody has worked here yet, so nothing can get lost.
    git::run(tree, &[], "reset", &arguments)
        .await
        .with_context(|| format!("can't move {branch} to its state at upstream"))
}
