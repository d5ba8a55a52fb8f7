//! `cachewfs before-sleep`: prepares all mounts for the sleep of the machine.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use cachewfs_fuse::control::protocol::ControlRequest;
use serde::Serialize;

use crate::json_choice::JsonChoice;
use crate::mount_table::{absolute, mounts_with_owners};
use crate::mounts::{MountChoice, block_on};

/// Answer all programs that wait for the network, so that the machine can sleep
///
///   cachewfs before-sleep               all mounts: of all users, if root runs it
///   cachewfs before-sleep /cachewfs
///
/// cachewfs-sleep.service runs it before each suspend and hibernation: the kernel can't freeze a
/// program that waits for a mount. The programs get an input/output error. Root prepares the mounts
/// of all users.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The mount to prepare. The default is all of them.
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: Option<PathBuf>,

    #[command(flatten)]
    json: JsonChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct BeforeSleepReport {
    /// The mounts that are prepared.
    mount_points: Vec<PathBuf>,
}

/// A group without any permissions.
const NOGROUP: u32 = 65_534;

/// A mount to prepare, or all mounts of another user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Mount(PathBuf),
    User(u32),
}

impl Target {
    fn prepare(self) -> Result<()> {
        match self {
            Self::Mount(mount) => {
                let choice = MountChoice { mount: Some(mount) };
                block_on(choice.ask(&ControlRequest::BeforeSleep))?;
                Ok(())
            }
            // A process of root trusts no socket of another user.
            Self::User(uid) => {
                let program = std::env::current_exe().context("can't find this program")?;
                let mut command = Command::new(program);
                let status = command.arg("before-sleep").uid(uid).gid(NOGROUP).status()?;
                anyhow::ensure!(
                    status.success(),
                    "the mounts of user {uid} are not prepared"
                );
                Ok(())
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let mounts = match &args.mount_point {
        Some(mount) => vec![(absolute(mount), Some(me))],
        None => mounts_with_owners()?,
    };
    let ours = |(mount, owner): (PathBuf, Option<u32>)| match owner.unwrap_or(0) {
        owner if owner == me => Some((mount.clone(), Target::Mount(mount))),
        owner => (me == 0).then_some((mount, Target::User(owner))),
    };
    let (mut mount_points, mut targets): (Vec<_>, Vec<_>) =
        mounts.into_iter().filter_map(ours).unzip();
    mount_points.sort();
    mount_points.dedup();
    targets.sort();
    targets.dedup();
    prepare_all(targets)?;
    args.json.print_json(&BeforeSleepReport { mount_points })
}

fn prepare_all(targets: Vec<Target>) -> Result<()> {
    // At once: each mount may need some seconds, and the machine waits.
    std::thread::scope(|scope| {
        let prepare = |target: Target| scope.spawn(|| target.prepare());
        let preparing: Vec<_> = targets.into_iter().map(prepare).collect();
        let outcomes = preparing.into_iter().map(|thread| {
            let outcome = thread.join();
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("a mount is not prepared")))
        });
        outcomes.fold(Ok(()), Result::and)
    })
}
