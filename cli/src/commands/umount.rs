//! `cachewfs umount`

use std::path::PathBuf;

use anyhow::Result;
use cachewfs_fuse::control::protocol::{Answer, Request};

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

pub(crate) fn run(args: &Args) -> Result<()> {
    let choice = MountChoice {
        mount: args.mount_point.clone(),
    };
    let mount_point = choice.mount_point()?;
    if clear_dead_mount(&mount_point)? {
        return Ok(());
    }
    block_on(async {
        if let Answer::Status(status) = choice.ask(&Request::Status).await? {
            for repo in status.repos.iter().filter(|repo| !repo.clones.is_empty()) {
                for clone in &repo.clones {
                    let clone = clone.display();
                    output::error(&format!(
                        "cachewfs: {clone} borrows objects of {}",
                        repo.repo
                    ));
                }
            }
        }
        choice.ask(&Request::Stop).await?;
        // The mount leaves the table a moment after the answer.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while mount_points()?.contains(&mount_point) {
            if tokio::time::Instant::now() > deadline {
                anyhow::bail!("{} is still mounted", mount_point.display());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    })
}
