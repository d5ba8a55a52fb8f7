//! `cachewfs umount`: unmounts a mount, and waits until its process has ended.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cachewfs_fuse::clear_dead_mount;
use cachewfs_fuse::control::ClientError;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::error::CliError;
use crate::mounts::{MountChoice, block_on, check_not_bound, mount_points};
use crate::output;

/// Unmount a mount, and end the process that serves it
///
///   cachewfs umount              the mount around the current directory, or the only one
///   cachewfs umount /cachewfs
///
/// umount(8) works too. Clones that borrow objects from the mount don't work until it is mounted
/// again. The command lists the clones that the mount knows.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The mount to unmount. The default is the mount that contains the current directory, or else
    /// the one that the clone there borrows from, or else the only mount.
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: Option<PathBuf>,
}

/// How long the command waits for the mount's process to end.
const ENDING_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the command checks whether the mount's process has ended.
const PERIOD: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &Args) -> Result<()> {
    let choice = MountChoice {
        mount: args.mount_point.clone(),
    };
    let mount_point = choice.mount_point()?;
    // Its mount may have other users, who would lose it with the bind mount.
    check_not_bound(&mount_point)?;
    if clear_dead_mount(&mount_point)? {
        return Ok(());
    }
    block_on(async {
        let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
        let pid = loop {
            let error = match ask_to_end(&choice).await {
                Ok(pid) => break pid,
                Err(error) => error,
            };
            // Root may end the mount of any user, but asks no process of another user.
            if matches!(error.downcast_ref(), Some(CliError::ForeignMount { .. }))
                && rustix::process::geteuid().is_root()
            {
                let flags = rustix::mount::UnmountFlags::NOFOLLOW;
                return Ok(rustix::mount::unmount(&mount_point, flags)?);
            }
            if clear_dead_mount(&mount_point)? {
                return Ok(());
            }
            // The mount's process was just killed. Its holder starts another one, or else the
            // kernel closes the FUSE connection, and the mount is dead.
            let was_killed = matches!(error.downcast_ref(), Some(ClientError::Lost(_)));
            if !was_killed || tokio::time::Instant::now() > deadline {
                return Err(error);
            }
            if !mount_points()?.contains(&mount_point) {
                return Ok(());
            }
            tokio::time::sleep(PERIOD).await;
        };
        // The answer comes before the end: the mount leaves the mount table, and an embedded daemon
        // finishes its writes, a moment later.
        let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
        while mount_points()?.contains(&mount_point) || is_running(pid) {
            if tokio::time::Instant::now() > deadline {
                anyhow::bail!(
                    "the mount at {}, which process {pid} serves, has not ended after {} s",
                    mount_point.display(),
                    ENDING_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(PERIOD).await;
        }
        Ok(())
    })
}

/// Asks the mount to end, and says which clones need it. Returns the process that serves the mount.
async fn ask_to_end(choice: &MountChoice) -> Result<u32> {
    let ControlAnswer::Status(status) = choice.ask(&ControlRequest::Status).await? else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    for repo in &status.repos {
        for clone in &repo.clones {
            let clone = clone.display();
            let name = &repo.repo;
            output::error(&format!(
                "cachewfs: the clone {clone} borrows objects of {name}, and won't work until the \
                 mount is mounted again"
            ));
        }
    }
    choice.ask(&ControlRequest::Stop).await?;
    Ok(status.pid)
}

/// Returns whether the process `pid` is running. A zombie isn't: it has ended, and its parent
/// hasn't waited for it yet.
fn is_running(pid: u32) -> bool {
    // `proc_pid_stat(5)`: the state follows the name, which is in parentheses and may contain `)`.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, fields)| fields.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
