//! Finds the mounts of this machine in the mount table, chooses one, and sends it requests.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use cachewfs_fuse::control::{Client, ClientError, ConnectError};
use cachewfs_fuse::{TableEntry, is_dead, mount_table};

use crate::borrowing::{BorrowedObjects, borrowed_here};
use crate::error::CliError;
use crate::output;
use crate::progress::Bar;
use crate::remote;

/// How often a command tries to connect to a mount that works and doesn't listen.
const RECOVERY_TRIES: usize = 10;

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

    /// Has the mount fetch what `request` names. Returns the number of bytes that it fetched. Fails
    /// if the cache doesn't have all of it then.
    pub(crate) fn fetch(&self, request: &ControlRequest) -> Result<u64> {
        match self.ask(request)? {
            ControlAnswer::Fetched { fetched_bytes } => Ok(fetched_bytes),
            ControlAnswer::Incomplete {
                kept_bytes,
                total_bytes,
                reason,
            } => Err(CliError::Incomplete {
                repo: self.name()?.to_string(),
                kept: output::bytes(kept_bytes),
                total: output::bytes(total_bytes),
                reason,
                is_pinned: matches!(request, ControlRequest::Pin { .. }),
            }
            .into()),
            _ => anyhow::bail!("the mount's answer is not of the requested kind"),
        }
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

/// The entries of the mount table that show cachewfs mounts, oldest first.
#[derive(Debug)]
struct MountTable(Vec<TableEntry>);

impl MountTable {
    fn read() -> Result<Self> {
        let entries = mount_table().context("can't read the mount table")?;
        Ok(Self(entries))
    }

    /// Returns the mounts themselves, without bind mounts of them.
    fn mounts(&self) -> impl Iterator<Item = &TableEntry> {
        let is_mount = |entry: &&TableEntry| self.original(entry) == Some(entry);
        self.0.iter().filter(is_mount)
    }

    /// Returns the mount of which `entry` shows a part or all, or `None` if this process can't see
    /// it: a container may have only the bind mount.
    fn original(&self, entry: &TableEntry) -> Option<&TableEntry> {
        let mut same = self.0.iter().filter(|other| other.device == entry.device);
        same.find(|other| other.is_whole)
    }

    /// Returns the entry that is visible at `point`. It hides earlier ones there.
    fn at(&self, point: &Path) -> Option<&TableEntry> {
        self.0.iter().rfind(|entry| entry.mount_point == point)
    }

    /// Returns the entry that contains `path`.
    fn around(&self, path: &Path) -> Option<&TableEntry> {
        let containing = self
            .0
            .iter()
            .filter(|entry| path.starts_with(&entry.mount_point));
        containing.max_by_key(|entry| entry.mount_point.as_os_str().len())
    }
}

/// Returns the mount points in the mount table. A mount that hides the one before it, at the same
/// mount point, adds no second entry; bind mounts add none.
pub(crate) fn mount_points() -> Result<Vec<PathBuf>> {
    let mounts = mounts_with_owners()?.into_iter();
    let mut points: Vec<_> = mounts.map(|(mount_point, _)| mount_point).collect();
    points.dedup();
    Ok(points)
}

/// Returns the mounts in the mount table, each with the user who mounted it if the options name
/// one. Bind mounts add none.
pub(crate) fn mounts_with_owners() -> Result<Vec<(PathBuf, Option<u32>)>> {
    let table = MountTable::read()?;
    let mounts = table.mounts();
    Ok(mounts
        .map(|entry| (entry.mount_point.clone(), entry.uid))
        .collect())
}

/// Returns whether `path` is in a cachewfs mount or in a bind mount of one.
pub(crate) fn is_mounted(path: &Path) -> Result<bool> {
    Ok(MountTable::read()?.around(path).is_some())
}

/// Fails if a bind mount of a cachewfs mount is at `point`.
pub(crate) fn check_not_bound(point: &Path) -> Result<()> {
    let table = MountTable::read()?;
    match table.at(point) {
        Some(entry) if table.original(entry) != Some(entry) => Err(CliError::BindMount {
            mount_point: point.display().to_string(),
        }
        .into()),
        _ => Ok(()),
    }
}

impl MountChoice {
    /// Returns the chosen mount point: the argument, the mount around the current directory, the
    /// mount that the clone there borrows from, or the only mount that this user may use.
    pub(crate) fn mount_point(&self) -> Result<PathBuf> {
        if let Some(chosen) = &self.mount {
            return Ok(absolute(chosen));
        }
        let table = MountTable::read()?;
        let here = std::env::current_dir().ok();
        let around = here.and_then(|here| table.around(&here));
        if let Some(mount) = around.and_then(|entry| table.original(entry)) {
            return Ok(mount.mount_point.clone());
        }
        if let Some(BorrowedObjects::OfMounted(repository)) = borrowed_here()
            && let Some(around) = table.around(&repository)
            && let Some(mount) = table.original(around)
        {
            return Ok(mount.mount_point.clone());
        }
        // Otherwise another user's mount would make each command without --mount fail as ambiguous,
        // or would be chosen.
        let mut mounts: Vec<_> = table.mounts().collect();
        if mounts.iter().any(|mount| is_ours(mount)) {
            mounts.retain(|mount| is_ours(mount));
        }
        let mut points: Vec<_> = mounts
            .iter()
            .map(|mount| mount.mount_point.clone())
            .collect();
        points.dedup();
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

    /// Connects to the control socket of the chosen mount. A bind mount stands for the mount of
    /// which it shows a part.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let chosen = self.mount_point()?;
        let table = MountTable::read()?;
        let entry = table.at(&chosen);
        let mount = entry.and_then(|entry| table.original(entry));
        let mount_point = mount.map_or(&chosen, |mount| &mount.mount_point);
        let connected = connect(mount_point).await;
        Ok(connected.map_err(|source| {
            let text = |path: &Path| path.display().to_string();
            let mount_point = text(mount_point);
            // A mount looks dead from here if its socket is in a directory that only its owner
            // finds. Then telling this user to unmount it would be wrong.
            match (source, entry) {
                (ConnectError::NotMounted, _) => CliError::NotAMount {
                    path: text(&chosen),
                },
                (ConnectError::Dead(_), Some(TableEntry { uid: Some(uid), .. }))
                    if !entry.is_some_and(is_ours) =>
                {
                    CliError::ForeignMount {
                        mount_point,
                        uid: *uid,
                    }
                }
                (ConnectError::Dead(_), Some(_)) if mount.is_none() => CliError::BindMount {
                    mount_point: text(&chosen),
                },
                (ConnectError::Dead(_), Some(_)) if !is_dead(&chosen) => {
                    CliError::HiddenSocket { mount_point }
                }
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
        let mut outcome = call(&mut self.connect().await?, request).await;
        // The mount's process was killed. Another one may go on, and each request may be repeated.
        if matches!(outcome, Err(ClientError::Lost(_)))
            && let Ok(mut client) = self.connect().await
        {
            outcome = call(&mut client, request).await;
        }
        Ok(outcome?)
    }
}

/// Sends a request, and shows its progress until the answer arrives.
async fn call(client: &mut Client, request: &ControlRequest) -> Result<ControlAnswer, ClientError> {
    let bar = Bar::new();
    let outcome = client.call(request, |progress| bar.show(&progress)).await;
    bar.finish();
    outcome
}

/// Connects to the mount at `mount_point`.
///
/// If its process was killed, nobody listens until another one serves the mount. `is_dead` waits
/// for the first answer of that process, which listens by then, but at most a second.
async fn connect(mount_point: &Path) -> Result<Client, ConnectError> {
    for _ in 0..RECOVERY_TRIES {
        match Client::connect(mount_point).await {
            Err(ConnectError::Dead(_)) if !is_dead(mount_point) => {}
            connected => return connected,
        }
    }
    Client::connect(mount_point).await
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

#[cfg(test)]
mod tests {
    use cachewfs_fuse::DeviceNumber;

    use super::*;

    #[test]
    fn a_bind_mount_is_no_mount_of_its_own() {
        let entry = |point: &str, uid, device: &str, is_whole| TableEntry {
            mount_point: point.into(),
            uid,
            device: DeviceNumber(device.to_owned()),
            is_whole,
            source: String::new(),
        };
        let table = MountTable(vec![
            entry("/a b", Some(7), "0:40", true),
            entry("/c", None, "0:41", true),
            entry("/e", Some(7), "0:40", false),
            entry("/c/f", None, "0:41", true),
            entry("/g", None, "0:43", false),
        ]);

        let mounts: Vec<_> = table
            .mounts()
            .map(|entry| (&*entry.mount_point, entry.uid))
            .collect();
        assert_eq!(
            mounts,
            [(Path::new("/a b"), Some(7)), (Path::new("/c"), None)]
        );
        let original = |path: &str| {
            let entry = table.around(Path::new(path)).unwrap();
            table
                .original(entry)
                .map(|entry| entry.mount_point.to_str().unwrap())
        };
        assert_eq!(original("/e/file"), Some("/a b"));
        assert_eq!(original("/c/f/host"), Some("/c"));
        assert_eq!(original("/g"), None);
    }
}
