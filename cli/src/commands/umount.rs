//! `cachewfs umount`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cachewfs_fuse::control::ClientError;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::mounts::{MountChoice, block_on, clear_dead_mount, mount_points};
use crate::output;

/// Unmount, and end the process that serves the mount.
///
/// Plain umount(8) does the same. Clones that borrow the mount's objects can't be used until it is
/// mounted again; those that are known are named.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The mount; the default is the only one.
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: Option<PathBuf>,
}

/// How long the end of the mount's process is waited for, and how often it is looked at.
const ENDING_TIMEOUT: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &Args) -> Result<()> {
    let choice = MountChoice {
        mount: args.mount_point.clone(),
    };
    let mount_point = choice.mount_point()?;
    if clear_dead_mount(&mount_point)? {
        return Ok(());
    }
    block_on(async {
        let status = match choice.ask(&ControlRequest::Status).await {
            Ok(ControlAnswer::Status(status)) => status,
            Ok(_) => anyhow::bail!("the mount gave another answer than asked for"),
            // Its process was killed just now, and the kernel is about to notice.
            Err(error) if matches!(error.downcast_ref(), Some(ClientError::Lost(_))) => {
                return clear_when_dead(&mount_point, error).await;
            }
            Err(error) => return Err(error),
        };
        for repo in &status.repos {
            for clone in &repo.clones {
                let clone = clone.display();
                let name = &repo.repo;
                output::error(&format!("cachewfs: {clone} borrows objects of {name}"));
            }
        }
        choice.ask(&ControlRequest::Stop).await?;
        // The mount leaves the table, and an embedded daemon its data, a moment after the answer.
        let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
        while mount_points()?.contains(&mount_point) || is_running(status.pid) {
            if tokio::time::Instant::now() > deadline {
                anyhow::bail!("{} is still being served", mount_point.display());
            }
            tokio::time::sleep(PERIOD).await;
        }
        Ok(())
    })
}

/// Takes a mount away as soon as the kernel knows that nobody serves it. Fails with `error` if that
/// doesn't come.
async fn clear_when_dead(mount_point: &Path, error: anyhow::Error) -> Result<()> {
    let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
    while !clear_dead_mount(mount_point)? && mount_points()?.contains(&mount_point.to_owned()) {
        if tokio::time::Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(PERIOD).await;
    }
    Ok(())
}

/// Whether a process of this id runs: one that has ended, and whose parent hasn't looked, does not.
fn is_running(pid: u32) -> bool {
    // `proc_pid_stat(5)`: the state follows the name, which is in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, fields)| fields.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
