//! `cachewfs prefetch`: fetches a part of a repository into the cache.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, PathReader, SnapshotPart};
use serde::Serialize;

use crate::chosen_repo::{ChosenRepo, RepoChoice};
use crate::error::CliError;
use crate::interrupt::interrupted;
use crate::json_choice::JsonChoice;
use crate::mounts::block_on;
use crate::progress::Bar;
use crate::{git, output};

/// Fetch a part of a repository into the cache
///
///   cachewfs prefetch github.com/org/repo               what a checkout needs
///   cachewfs prefetch github.com/org/repo --commits     what git log needs, too
///   cachewfs prefetch github.com/org/repo --all         the whole repository
///   cachewfs prefetch github.com/org/repo --path src/web --path Makefile
///   cachewfs prefetch github.com/org/repo --since 2w    what git log -p --since=2.weeks needs
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    part: PartChoice,

    /// Fetch only this file, or the files below this directory, of the mount's work tree, and the
    /// index that is read to find them.
    ///
    /// May be given several times. Nothing of the history is fetched, and nothing for clones.
    #[arg(long, value_name = "PATH", conflicts_with = "PartChoice")]
    path: Vec<String>,

    /// Fetch the commits of all branches since then, with the versions of files that they changed.
    ///
    /// A date that git understands, or a duration such as 2w. Has git read them in the mount once.
    #[arg(long, value_name = "WHEN", conflicts_with = "PartChoice")]
    since: Option<String>,

    #[command(flatten)]
    repo: RepoChoice,

    #[command(flatten)]
    json: JsonChoice,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct PartChoice {
    /// Fetch the files and objects that a checkout needs. This is the default.
    #[arg(long)]
    hot: bool,

    /// Also fetch all commits, for `git log`.
    #[arg(long)]
    commits: bool,

    /// Also fetch all trees, for `git log -- PATH`.
    #[arg(long)]
    trees: bool,

    /// Fetch the whole repository.
    #[arg(long)]
    all: bool,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct PrefetchReport {
    repo: RepoName,
    /// The part, or `None` with `--path` or `--since`.
    part: Option<SnapshotPart>,
    fetched_bytes: u64,
}

impl PartChoice {
    fn part(&self) -> SnapshotPart {
        match (self.commits, self.trees, self.all) {
            (true, _, _) => SnapshotPart::Commits,
            (_, true, _) => SnapshotPart::Trees,
            (_, _, true) => SnapshotPart::All,
            _ => SnapshotPart::Hot,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    let is_part = args.path.is_empty() && args.since.is_none();
    let part = is_part.then(|| args.part.part());
    let mut fetched_bytes = 0;
    if let Some(part) = part {
        let repo = repo.clone();
        fetched_bytes += chosen.fetch(&ControlRequest::Prefetch { repo, part })?;
    }
    if !args.path.is_empty() {
        fetched_bytes += chosen.fetch(&ControlRequest::PrefetchPaths {
            repo: repo.clone(),
            paths: args.path.clone(),
            reader: PathReader::WorkTree,
        })?;
    }
    if let Some(since) = &args.since {
        fetched_bytes += read_history(&chosen, since)?;
    }
    let line = format!("Prefetched {repo}: {}", output::fetched(fetched_bytes));
    let report = PrefetchReport {
        repo,
        part,
        fetched_bytes,
    };
    args.json.print(&report, &line)
}

/// Has git read the history since `when` in the mount. Returns the number of bytes that the mount
/// fetched meanwhile.
fn read_history(chosen: &ChosenRepo, when: &str) -> Result<u64> {
    let repo = chosen.name.clone();
    let request = ControlRequest::Resolve { repo };
    let ControlAnswer::Resolved {
        objects_directory, ..
    } = chosen.ask(&request)?
    else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let before = block_on(chosen.fetched_bytes())?;
    let since = format!("--since=@{}", seconds_of(&objects_directory, when)?);
    let directory = format!("--git-dir={}", objects_directory.display());
    // As a person reads it: a merge shows what differs from each of its parents.
    let arguments = [
        "log",
        "--all",
        "-p",
        "--diff-merges=combined",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        &since,
    ];
    let bar = Bar::new();
    bar.step("reading the history in the mount");
    let read = block_on(async {
        tokio::select! {
            read = git::run(&objects_directory, &[], &directory, &arguments) => read,
            _ = interrupted() => Err(CliError::Interrupted.into()),
        }
    });
    bar.finish();
    read?;
    Ok(block_on(chosen.fetched_bytes())?.saturating_sub(before))
}

/// Returns the moment that `when` means, in seconds since the epoch.
fn seconds_of(directory: &Path, when: &str) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    if let Ok(duration) = humantime::parse_duration(when) {
        return Ok(now.saturating_sub(duration).as_secs());
    }
    let since = format!("--since={when}");
    let said = git::line(directory, &["rev-parse", &since]);
    let seconds = said.and_then(|said| said.strip_prefix("--max-age=")?.parse().ok());
    // git takes a word that it doesn't know for the present.
    let is_past = |seconds: &u64| Duration::from_secs(*seconds) + Duration::from_secs(2) < now;
    let seconds = seconds.filter(is_past);
    seconds.ok_or_else(|| {
        let date = when.to_owned();
        CliError::BadDate { date }.into()
    })
}
