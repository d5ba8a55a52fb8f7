//! `cachewfs umount`: unmounts a mount, and waits until its process has ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::clear_dead_mount;
use cachewfs_fuse::control::ClientError;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use serde::Serialize;

use crate::error::CliError;
use crate::json_choice::JsonChoice;
use crate::mount_table::{check_not_bound, mount_points};
use crate::mounts::{MountChoice, block_on};
use crate::output;
use crate::progress::Bar;

/// Unmount a mount, and end the process that serves it
///
///   cachewfs umount              the mount around the current directory, or the only one
///   cachewfs umount /cachewfs
///   cachewfs umount --json /cachewfs | jq -r '.clones[].directory'
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

    #[command(flatten)]
    json: JsonChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct UmountReport {
    mount_point: PathBuf,
    /// Clones that don't work until the mount is mounted again.
    clones: Vec<NeedyClone>,
}

/// A clone that borrows objects of the mount.
#[derive(Debug, Serialize)]
struct NeedyClone {
    repo: RepoName,
    directory: PathBuf,
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
    let clones = unmount(&choice, &mount_point)?;
    args.json.print_json(&UmountReport {
        mount_point,
        clones,
    })
}

/// Unmounts, and waits for the end of the mount's process. Returns the clones that need the mount,
/// as far as it could be asked.
fn unmount(choice: &MountChoice, mount_point: &Path) -> Result<Vec<NeedyClone>> {
    if clear_dead_mount(mount_point)? {
        return Ok(Vec::new());
    }
    block_on(async {
        let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
        let (pid, clones) = loop {
            let error = match ask_to_end(choice).await {
                Ok(ending) => break ending,
                Err(error) => error,
            };
            // Root may end the mount of any user, but asks no process of another user.
            if matches!(error.downcast_ref(), Some(CliError::ForeignMount { .. }))
                && rustix::process::geteuid().is_root()
            {
                let flags = rustix::mount::UnmountFlags::NOFOLLOW;
                rustix::mount::unmount(mount_point, flags)?;
                return Ok(Vec::new());
            }
            if clear_dead_mount(mount_point)? {
                return Ok(Vec::new());
            }
            // The mount's process was just killed. Its holder starts another one, or else the
            // kernel closes the FUSE connection, and the mount is dead.
            let was_killed = matches!(error.downcast_ref(), Some(ClientError::Lost(_)));
            if !was_killed || tokio::time::Instant::now() > deadline {
                return Err(error);
            }
            if !is_mounted(mount_point)? {
                return Ok(Vec::new());
            }
            tokio::time::sleep(PERIOD).await;
        };
        // The answer comes before the end: the mount leaves the mount table, and an embedded daemon
        // finishes its writes, a moment later.
        let bar = Bar::new();
        bar.step(&format!("waiting for the end of process {pid}"));
        let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
        while is_mounted(mount_point)? || is_running(pid) {
            if tokio::time::Instant::now() > deadline {
                anyhow::bail!(
                    "the mount at {}, which process {pid} serves, has not ended after {} s",
                    mount_point.display(),
                    ENDING_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(PERIOD).await;
        }
        bar.finish();
        Ok(clones)
    })
}

fn is_mounted(mount_point: &Path) -> Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == mount_point))
}

/// Asks the mount to end, and says which clones need it. Returns the process that serves the mount,
/// and these clones.
async fn ask_to_end(choice: &MountChoice) -> Result<(u32, Vec<NeedyClone>)> {
    let ControlAnswer::Status(status) = choice.ask(&ControlRequest::Status).await? else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let repos = status.repos.into_iter();
    let clones = repos.flat_map(|report| {
        let repo = report.repo;
        let clones = report.clones.into_iter();
        clones.map(move |directory| NeedyClone {
            repo: repo.clone(),
            directory,
        })
    });
    let clones: Vec<_> = clones.collect();
    for NeedyClone { repo, directory } in &clones {
        let clone = directory.display();
        output::error(&format!(
            "cachewfs: the clone {clone} borrows objects of {repo}, and won't work until the mount \
             is mounted again"
        ));
    }
    choice.ask(&ControlRequest::Stop).await?;
    Ok((status.pid, clones))
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
