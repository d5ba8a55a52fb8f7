//! Finds the mounts of this machine in the mount table, chooses one, and sends it requests.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use cachewfs_fuse::control::{Client, ConnectError};

use crate::error::CliError;
use crate::progress::Bar;
use crate::remote;

/// The arguments that choose a mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountChoice {
    /// The mount to use. The default is the mount that contains the current directory, or else the
    /// only mount.
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

/// A cachewfs mount in the mount table.
#[derive(Debug, PartialEq, Eq)]
struct TableEntry {
    point: PathBuf,
    /// The user who mounted it, if the mount options name one.
    uid: Option<u32>,
}

impl TableEntry {
    /// Returns whether the mount belongs to this user or to root. Mounts of other users may refuse
    /// this user's commands.
    fn is_ours(&self) -> bool {
        let me = rustix::process::geteuid().as_raw();
        self.uid.is_none_or(|uid| uid == 0 || uid == me)
    }
}

/// Returns the mount points in the mount table. A mount that hides the one before it, at the same
/// mount point, adds no second entry.
pub(crate) fn mount_points() -> Result<Vec<PathBuf>> {
    let mut points: Vec<_> = table()?.into_iter().map(|entry| entry.point).collect();
    points.dedup();
    Ok(points)
}

fn table() -> Result<Vec<TableEntry>> {
    let table = fs::read("/proc/self/mountinfo").context("can't read the mount table")?;
    Ok(table
        .split(|&byte| byte == b'\n')
        .filter_map(entry)
        .collect())
}

/// Parses a line of `proc_pid_mountinfo(5)`. Returns `None` if it isn't a cachewfs mount.
fn entry(line: &[u8]) -> Option<TableEntry> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    if *fields.get(dash + 1)? != b"fuse.cachewfs" {
        return None;
    }
    let options = fields.get(dash + 3).copied().unwrap_or_default();
    let uid = options
        .split(|&byte| byte == b',')
        .find_map(|option| option.strip_prefix(b"user_id="));
    Some(TableEntry {
        point: unescape(fields.get(4)?),
        uid: uid.and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok()),
    })
}

/// Decodes the octal escapes of the mount table, such as `\040` for a space.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Unmounts a dead mount: one whose process was killed. Returns whether there was one.
pub(crate) fn clear_dead_mount(mount_point: &Path) -> Result<bool> {
    // The kernel keeps a dead mount in the mount table, and fails every access to it with ENOTCONN.
    let not_connected = rustix::io::Errno::NOTCONN.raw_os_error();
    let is_dead =
        fs::metadata(mount_point).is_err_and(|error| error.raw_os_error() == Some(not_connected));
    if !is_dead || !mount_points()?.contains(&absolute(mount_point)) {
        return Ok(false);
    }
    if rustix::process::geteuid().is_root() {
        rustix::mount::unmount(mount_point, rustix::mount::UnmountFlags::DETACH)?;
        return Ok(true);
    }
    let status = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(mount_point)
        .status();
    Ok(status.is_ok_and(|status| status.success()))
}

impl MountChoice {
    /// Returns the chosen mount point: the argument, the mount around the current directory, or the
    /// only mount that this user may use.
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
        // Otherwise another user's mount would make each command without --mount fail as ambiguous,
        // or would be chosen.
        let table = table()?;
        let is_ours = |point: &PathBuf| {
            let mut entries = table.iter().filter(|entry| entry.point == *point);
            entries.any(TableEntry::is_ours)
        };
        if points.iter().any(is_ours) {
            points.retain(is_ours);
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
            let entry = entries.iter().rfind(|entry| entry.point == mount_point);
            let foreign = entry.filter(|entry| !entry.is_ours());
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
fn absolute(path: &Path) -> PathBuf {
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
    use super::*;

    #[test]
    fn the_mount_table_names_the_user_who_mounted() {
        let lines =
            b"36 1 0:40 / /a\\040b rw,nosuid - fuse.cachewfs http://h rw,user_id=7,group_id=7\n\
            37 1 0:41 / /c rw shared:1 - fuse.cachewfs http://h rw\n\
            38 1 0:42 / /d rw - ext4 /dev/sda rw\n\
            39 1";

        let found: Vec<_> = lines
            .split(|&byte| byte == b'\n')
            .filter_map(entry)
            .collect();

        let entry = |point: &str, uid| TableEntry {
            point: point.into(),
            uid,
        };
        assert_eq!(found, [entry("/a b", Some(7)), entry("/c", None)]);
    }

    #[test]
    fn octal_escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134"), PathBuf::from("/a b\\"));
    }
}
