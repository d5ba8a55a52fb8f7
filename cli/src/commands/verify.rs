//! `cachewfs verify`: checks what is stored on this machine of a repository, or of a clone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, DamagedFileReport};
use serde::Serialize;

use crate::borrowing::{BorrowedObjects, alternates, borrowed};
use crate::chosen_repo::{ChosenRepo, NamedRepo};
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::json_choice::JsonChoice;
use crate::mount_table::MountTable;
use crate::mounts::{MountChoice, block_on};
use crate::progress::Bar;
use crate::speech::Speech;
use crate::{git, output};

/// Check what is stored on this machine of a repository, or of a clone
///
///   cachewfs verify                          the clone here, and what the cache has for it
///   cachewfs verify src/repo --full          also reads all objects, from the mount too
///   cachewfs verify github.com/org/repo      what the cache has of this repository
///
/// The mount compares the bytes in its cache with the checksums that it wrote when they arrived.
/// It drops those that differ, and fetches them again when they are read. In a clone, git also
/// reads the clone's own packs, and looks for objects that its branches need and that are missing.
/// It doesn't look again at the history of the mount's branches, unless with --full. The exit code
/// is 1 if anything is wrong.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A directory in a clone, or a repository as https://github.com/org/repo or
    /// github.com/org/repo.
    #[arg(value_name = "DIR-OR-REPO", default_value = ".")]
    target: String,

    /// Have git read all objects of the clone, also those in the mount: it fetches the whole
    /// history.
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    json: JsonChoice,

    #[command(flatten)]
    choice: MountChoice,
}

/// The result, for programs.
#[derive(Debug, Default, Serialize)]
struct VerifyReport {
    /// The top of the clone, if one was checked.
    directory: Option<PathBuf>,
    repositories: Vec<CachedRepository>,
    /// The faults that git found in the clone.
    problems: Vec<Problem>,
}

/// The cached bytes of one repository.
#[derive(Debug, Serialize)]
struct CachedRepository {
    repo: RepoName,
    checked_bytes: u64,
    damaged: Vec<DamagedFileReport>,
}

#[derive(Debug, Serialize)]
struct Problem {
    check: &'static str,
    details: String,
    remedy: &'static str,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = named_repo(args)?;
    let bar = Bar::new();
    let report = block_on(async {
        tokio::select! {
            report = verify(args, repo, &bar) => report,
            _ = interrupted() => Err(CliError::Interrupted.into()),
        }
    });
    bar.finish();
    let report = report?;
    args.json.print_json(&report)?;
    if !Speech::chosen().is_json {
        for line in lines(&report) {
            output::line(&line)?;
        }
    }
    let damaged = report.repositories.iter().map(|repo| repo.damaged.len());
    match damaged.sum::<usize>() + report.problems.len() {
        0 => Ok(()),
        count => Err(CliError::Damaged { count }.into()),
    }
}

/// Returns the repository of a mount that the argument names, or `None` if it is a clone.
fn named_repo(args: &Args) -> Result<Option<ChosenRepo>> {
    let path = Path::new(&args.target);
    // The mount table is asked first: a dead mount could hold up a look at the path.
    if MountTable::read()?.place(path).is_none() && path.is_dir() {
        return Ok(None);
    }
    let named = NamedRepo::find(&args.target)?;
    named.choose(&args.choice, None).map(Some)
}

async fn verify(args: &Args, repo: Option<ChosenRepo>, bar: &Bar) -> Result<VerifyReport> {
    let directory = Path::new(&args.target);
    if let Some(repo) = repo {
        return Ok(VerifyReport {
            repositories: vec![check_cached(&repo.mount, repo.name).await?],
            ..VerifyReport::default()
        });
    }
    let nothing = || CliError::NothingBorrowed {
        directory: directory.display().to_string(),
    };
    let (objects, lines) = alternates(Some(directory)).ok_or_else(nothing)?;
    let table = MountTable::read()?;
    let mut report = VerifyReport::default();
    for line in &lines {
        let Some(BorrowedObjects::OfMounted(repository)) = borrowed(line, &objects) else {
            continue;
        };
        let place = table.place(&repository);
        let name = place.as_ref().and_then(|place| {
            let name = place.below.to_str()?;
            RepoName::parse(name).ok()
        });
        let (Some(name), Some(place)) = (name, place) else {
            let repository = repository.display().to_string();
            return Err(CliError::CloneWithoutMount { repository }.into());
        };
        let choice = MountChoice::of(place.mount_point);
        report.repositories.push(check_cached(&choice, name).await?);
    }
    if report.repositories.is_empty() {
        return Err(nothing().into());
    }
    let top = git::top_of_work_tree(directory);
    report.directory = Some(std::path::absolute(top.as_deref().unwrap_or(directory))?);
    check_clone(args, (directory, &objects), &mut report.problems, bar).await?;
    Ok(report)
}

async fn check_cached(choice: &MountChoice, repo: RepoName) -> Result<CachedRepository> {
    let request = ControlRequest::Check { repo: repo.clone() };
    match choice.ask(&request).await? {
        ControlAnswer::Checked {
            checked_bytes,
            damaged,
        } => Ok(CachedRepository {
            repo,
            checked_bytes,
            damaged,
        }),
        _ => anyhow::bail!("the mount's answer is not of the requested kind"),
    }
}

/// Has git check the clone's own objects, and that no object is missing.
async fn check_clone(
    args: &Args,
    (directory, objects): (&Path, &Path),
    problems: &mut Vec<Problem>,
    bar: &Bar,
) -> Result<()> {
    const FETCH_AGAIN: &str = "make a new clone, and fetch the branches of this one into it";
    bar.step("reading the clone's own packs");
    for entry in std::fs::read_dir(objects.join("pack"))
        .into_iter()
        .flatten()
    {
        let index = std::path::absolute(entry?.path())?;
        if index
            .extension()
            .is_some_and(|extension| extension == "idx")
        {
            let index = index.display().to_string();
            let checked = git::run(directory, &[], "verify-pack", &["--", &index]).await;
            note(problems, ("own packs", FETCH_AGAIN), checked);
        }
    }
    bar.step("looking for missing objects");
    // The mount shows no ref whose objects are not there. So git looks only at what the clone has
    // beyond the refs of the mount.
    let arguments = [
        "--objects",
        "--quiet",
        "--all",
        "--reflog",
        "--indexed-objects",
        "--not",
        "--alternate-refs",
    ];
    let checked = git::run(directory, &[], "rev-list", &arguments).await;
    note(problems, ("missing objects", FETCH_AGAIN), checked);
    if args.full {
        bar.step("reading all objects");
        let arguments = ["--full", "--no-dangling", "--no-progress"];
        let checked = git::run(directory, &[], "fsck", &arguments).await;
        note(problems, ("all objects", FETCH_AGAIN), checked);
    }
    Ok(())
}

fn note(
    problems: &mut Vec<Problem>,
    (check, remedy): (&'static str, &'static str),
    checked: Result<()>,
) {
    if let Err(error) = checked {
        let details = format!("{error:#}");
        problems.push(Problem {
            check,
            details,
            remedy,
        });
    }
}

fn lines(report: &VerifyReport) -> Vec<String> {
    let mut lines = Vec::new();
    for repo in &report.repositories {
        let name = &repo.repo;
        let checked = output::bytes(repo.checked_bytes);
        lines.push(format!("{name}: checked {checked} in the cache"));
        for file in &repo.damaged {
            let bytes = output::bytes(file.damaged_bytes);
            lines.push(format!(
                "{name}: {} had {bytes} of wrong bytes in the cache: dropped, and fetched again \
                 when they are read",
                output::cell(&file.path),
            ));
        }
    }
    if let Some(directory) = &report.directory {
        let directory = directory.display();
        if report.problems.is_empty() {
            lines.push(format!("{directory}: git finds nothing wrong"));
        }
        for Problem {
            check,
            details,
            remedy,
        } in &report.problems
        {
            lines.push(format!("{directory}: {check}: {details}; {remedy}"));
        }
    }
    lines
}
