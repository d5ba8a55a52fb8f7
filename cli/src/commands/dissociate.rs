//! `cachewfs dissociate`: makes a clone independent of its mount.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cachewfs_base::Volume;
use cachewfs_fuse::control::protocol::{ControlRequest, Progress};
use serde::Serialize;

use crate::borrowing::{BorrowedObjects, alternates, borrowed};
use crate::dissociation::{BorrowingRepository, CopyReport};
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::json_choice::JsonChoice;
use crate::mount_table::MountTable;
use crate::mounts::{MountChoice, block_on};
use crate::progress::Bar;
use crate::speech::Speech;
use crate::{git, output};

/// How long an interrupted copy may take to remove the file that it was copying.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Copy the objects that a clone borrows from a mount, so that it works without the mount
///
///   cachewfs dissociate --dry-run        says how much the clone here would copy
///   cachewfs dissociate src/repo
///
/// It copies all packs of the mounted repository, which are not compressed: `git repack -a -d -F`
/// makes them smaller later. Linked work trees and submodules of the clone are independent then,
/// too. You can work in the clone meanwhile.
///
/// If the command is interrupted or fails, the clone works as before. Run it again: it copies only
/// the packs that are missing.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A directory in the clone.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Only say how much would be copied.
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    json: JsonChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct DissociateReport {
    directory: PathBuf,
    is_dry_run: bool,
    copied_bytes: u64,
    /// The clone, and those of its submodules that borrow.
    repositories: Vec<CopyReport>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repositories = find(&args.directory)?;
    let top = git::top_of_work_tree(&args.directory);
    let directory = top.unwrap_or_else(|| args.directory.clone());
    let directory = std::path::absolute(directory)?;
    let reports = if args.dry_run {
        let previews = repositories.iter().map(BorrowingRepository::preview);
        previews.collect::<Result<Vec<_>>>()?
    } else {
        let mut total = 0;
        for repository in &repositories {
            total += repository.missing_bytes()?;
        }
        check_room(repositories.first(), total)?;
        if !Speech::chosen().is_json {
            output::line(&format!(
                "Copying {} into {}",
                output::bytes(total),
                directory.display()
            ))?;
        }
        dissociate(repositories, total)?
    };
    let report = DissociateReport {
        directory,
        is_dry_run: args.dry_run,
        copied_bytes: reports.iter().map(|report| report.copied_bytes).sum(),
        repositories: reports,
    };
    if !report.is_dry_run {
        unregister(&report);
    }
    let (directory, bytes) = (report.directory.display(), report.copied_bytes);
    let line = if report.is_dry_run {
        format!("Would copy {} into {directory}", output::bytes(bytes))
    } else {
        format!("{directory} no longer needs the mount")
    };
    args.json.print(&report, &line)
}

/// Returns the repositories of the clone around `directory` that borrow from mounts.
fn find(directory: &Path) -> Result<Vec<BorrowingRepository>> {
    let nothing = || CliError::NothingBorrowed {
        directory: directory.display().to_string(),
    };
    let (objects, lines) = alternates(Some(directory)).ok_or_else(nothing)?;
    let is_own = |line: &Vec<u8>| borrowed(line, &objects).is_some_and(|place| is_own(&place));
    if lines.iter().any(is_own) {
        return Err(CliError::CopyWithoutObjects.into());
    }
    let mut repositories: Vec<_> = BorrowingRepository::open(&objects)?.into_iter().collect();
    let git_dir = objects.parent().unwrap_or(Path::new("/"));
    repositories.extend(BorrowingRepository::submodules(git_dir)?);
    if repositories.is_empty() {
        return Err(nothing().into());
    }
    Ok(repositories)
}

fn is_own(place: &BorrowedObjects) -> bool {
    matches!(place, BorrowedObjects::Own(_))
}

/// Fails before anything is copied if the disk has no room for `needed` bytes.
fn check_room(repository: Option<&BorrowingRepository>, needed: u64) -> Result<()> {
    let Some(repository) = repository else {
        return Ok(());
    };
    let objects = repository.objects();
    let Volume { free, .. } = Volume::of(&objects)
        .with_context(|| format!("can't look at the disk of {}", objects.display()))?;
    if needed > free {
        return Err(CliError::NoRoom {
            needed: output::bytes(needed),
            free: output::bytes(free),
            directory: objects.display().to_string(),
        }
        .into());
    }
    Ok(())
}

/// Dissociates the repositories one after the other.
fn dissociate(repositories: Vec<BorrowingRepository>, total: u64) -> Result<Vec<CopyReport>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_interrupted);
    let work = move || {
        let bar = Bar::new();
        let mut reports: Vec<CopyReport> = Vec::new();
        for repository in repositories {
            let before: u64 = reports.iter().map(|report| report.copied_bytes).sum();
            let on_progress = |done: u64| {
                bar.show(&Progress {
                    step: "copying the packs".to_owned(),
                    done_bytes: before + done,
                    total_bytes: total,
                });
            };
            reports.push(repository.dissociate(&flag, on_progress)?);
        }
        bar.finish();
        Ok(reports)
    };
    // On a thread of its own, for which the process doesn't wait when it ends: a read of the mount
    // may wait for a dead network.
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()));
    block_on(async {
        tokio::pin!(outcome);
        tokio::select! {
            outcome = &mut outcome => outcome?,
            _ = interrupted() => {
                is_interrupted.store(true, Ordering::Relaxed);
                // The thread removes the file that it was copying.
                let ended = tokio::time::timeout(END_TIMEOUT, outcome).await;
                ended.map_or_else(|_| Err(CliError::Interrupted.into()), |outcome| outcome?)
            }
        }
    })
}

/// Tells the mounts that the clone borrows nothing any more.
fn unregister(report: &DissociateReport) {
    let Ok(table) = MountTable::read() else {
        return;
    };
    let repositories = report.repositories.iter();
    for repository in repositories.flat_map(|report| &report.borrowed_from) {
        let Some(mount_point) = table.mount_around(repository) else {
            continue;
        };
        let choice = MountChoice::of(mount_point);
        let directory = report.directory.clone();
        let request = ControlRequest::UnregisterClone { directory };
        // The registration is a hint for people. An older mount doesn't know the request.
        block_on(choice.ask(&request)).ok();
    }
}
