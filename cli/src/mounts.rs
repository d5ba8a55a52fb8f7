//! The mounts of this machine, and how to ask one.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{Answer, Request};
use cachewfs_fuse::control::{Client, ConnectError};

use crate::error::CliError;
use crate::progress::Bar;
use crate::remote;

/// Which mount is meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountChoice {
    /// The mount to ask, where several are running. The default is the one around the current
    /// directory, or else the only one.
    #[arg(long, value_name = "MOUNTPOINT", global = true)]
    pub(crate) mount: Option<PathBuf>,
}

/// Which repository is meant, of which mount.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepoChoice {
    /// The repository.
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    mount: MountChoice,
}

impl RepoChoice {
    /// Its name.
    pub(crate) fn name(&self) -> Result<RepoName> {
        Ok(remote::repo_name(&self.url)?)
    }

    /// Asks the mount, and shows progress until it answers.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer> {
        block_on(self.mount.ask(request))
    }
}

/// A mount in the mount table.
#[derive(Debug, PartialEq, Eq)]
struct TableEntry {
    point: PathBuf,
    /// The user who mounted.
    uid: Option<u32>,
}

impl TableEntry {
    /// Returns whether this user's commands may mean it: mounts of other users don't answer them.
    fn is_ours(&self) -> bool {
        let me = rustix::process::geteuid().as_raw();
        self.uid.is_none_or(|uid| uid == 0 || uid == me)
    }
}

/// The mount points in the mount table, without those hidden below others.
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

/// Reads a line of `proc_pid_mountinfo(5)`, if it is of a mount of ours.
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

/// Undoes the octal escapes of the mount table.
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

/// Takes away what is left of a mount whose process was killed; whether there was anything.
///
/// The kernel keeps such a mount in its table, and refuses whatever asks there with ENOTCONN.
pub(crate) fn clear_dead_mount(mount_point: &Path) -> Result<bool> {
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
    /// The mount point that is meant.
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
        // Mounts of other users neither answer nor make the choice unclear.
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

    /// Connects to the mount.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let mount_point = self.mount_point()?;
        let connected = Client::connect(&mount_point).await;
        Ok(connected.map_err(|source| {
            let entries = table().unwrap_or_default();
            let entry = entries.iter().rfind(|entry| entry.point == mount_point);
            let stranger = entry.filter(|entry| !entry.is_ours());
            let mount_point = mount_point.display().to_string();
            match (source, stranger.and_then(|entry| entry.uid)) {
                (ConnectError::Dead(_), Some(uid)) => CliError::ForeignMount { mount_point, uid },
                (source, _) => CliError::CantConnect {
                    mount_point,
                    source,
                },
            }
        })?)
    }

    /// Makes one request, with a progress bar. If this process ends first, the mount stops working on it.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer> {
        let mut client = self.connect().await?;
        let bar = Bar::new();
        let outcome = client.call(request, |progress| bar.show(&progress)).await;
        bar.finish();
        Ok(outcome?)
    }
}

/// An absolute path without looking at what is there: a dead mount can't be looked at.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Runs `work` on a small runtime.
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
