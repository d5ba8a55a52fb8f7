//! Finds the mounts of this machine in the mount table, chooses one, and sends it requests.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use cachewfs_fuse::control::{Client, ConnectError};
use cachewfs_fuse::{TableEntry, mount_table};

use crate::borrowing::borrowed_here;
use crate::error::CliError;
use crate::progress::Bar;
use crate::remote;

/// The arguments that choose a mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountChoice {
    /// The mount to use. The default is the mount that contains the current directory, or else the
    /// one that the clone there borrows from, or else the only mount.
    #[arg(long, value_name = "MOUNTPOINT", global = true)]
    pub(crate) mount: Option<PathBuf>,
}

/// The arguments that choose a repository and a mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepoChoice {
    /// The repository, as https://github.com/org/repo or github.com/org/repo.
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    mount: MountChoice,
}

impl RepoChoice {
    pub(crate) fn name(&self) -> Result<RepoName> {
        Ok(remote::repo_name(&self.url)?)
    }

    /// Sends `request` to the mount, and shows its progress until the answer arrives.
    pub(crate) fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        block_on(self.mount.ask(request))
    }
}

/// Returns whether a mount belongs to this user or to root. Mounts of other users may refuse this
/// user's commands.
fn is_ours(entry: &TableEntry) -> bool {
    let me = rustix::process::geteuid().as_raw();
    entry.uid.is_none_or(|uid| uid == 0 || uid == me)
}

/// Returns the mount points in the mount table. A mount that hides the one before it, at the same
/// mount point, adds no second entry. Bind mounts of single directories add none.
pub(crate) fn mount_points() -> Result<Vec<PathBuf>> {
    let mut points: Vec<_> = table()?
        .into_iter()
        .filter(|entry| entry.is_whole)
        .map(|entry| entry.mount_point)
        .collect();
    points.dedup();
    Ok(points)
}

fn table() -> Result<Vec<TableEntry>> {
    mount_table().context("can't read the mount table")
}

impl MountChoice {
    /// Returns the chosen mount point: the argument, the mount around the current directory, the
    /// mount that the clone there borrows from, or the only mount that this user may use.
    pub(crate) fn mount_point(&self) -> Result<PathBuf> {
        if let Some(chosen) = &self.mount {
            return Ok(absolute(chosen));
        }
        let mut points = mount_points()?;
        let here = std::env::current_dir().ok();
        let around = points
            .iter()
            .find(|point| here.as_ref().is_some_and(|here| here.starts_with(point)));
        if let Some(point) = around {
            return Ok(point.clone());
        }
        if let Some(borrowed) = borrowed_here()
            && points.contains(&borrowed.mount_point)
        {
            return Ok(borrowed.mount_point);
        }
        // Otherwise another user's mount would make each command without --mount fail as ambiguous,
        // or would be chosen.
        let table = table()?;
        let has_ours = |point: &PathBuf| {
            let mut entries = table.iter().filter(|entry| entry.mount_point == *point);
            entries.any(is_ours)
        };
        if points.iter().any(has_ours) {
            points.retain(has_ours);
        }
        match points.as_slice() {
            [point] => Ok(point.clone()),
            [] => Err(CliError::NoMount.into()),
            several => {
                let mounts: Vec<_> = several
                    .iter()
                    .map(|point| point.display().to_string())
                    .collect();
                Err(CliError::SeveralMounts {
                    mounts: mounts.join(", "),
                }
                .into())
            }
        }
    }

    /// Connects to the control socket of the chosen mount.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let mount_point = self.mount_point()?;
        let connected = Client::connect(&mount_point).await;
        Ok(connected.map_err(|source| {
            let entries = table().unwrap_or_default();
            let entry = entries
                .iter()
                .rfind(|entry| entry.mount_point == mount_point);
            let foreign = entry.filter(|entry| !is_ours(entry));
            let mount_point = mount_point.display().to_string();
            match (source, foreign.and_then(|entry| entry.uid)) {
                // The socket of another user's mount is in that user's directory. So the mount
                // looks dead from here, but telling this user to unmount it would be wrong.
                (ConnectError::Dead(_), Some(uid)) => CliError::ForeignMount { mount_point, uid },
                (source, _) => CliError::CantConnect {
                    mount_point,
                    source,
                },
            }
        })?)
    }

    /// Sends one request, and shows a progress bar until the answer arrives. If this process ends
    /// first, the mount stops working on the request.
    pub(crate) async fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer> {
        let mut client = self.connect().await?;
        let bar = Bar::new();
        let outcome = client.call(request, |progress| bar.show(&progress)).await;
        bar.finish();
        Ok(outcome?)
    }
}

/// Makes a path absolute.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    // `canonicalize` would access the path, which fails below a dead mount.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Runs `work` on a runtime of one thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
