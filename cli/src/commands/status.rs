//! `cachewfs status`: the state of a mount as text or JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, RepoReport, StatusReport};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::borrowing::{BorrowedObjects, borrowed_here};
use crate::error::CliError;
use crate::mounts::{MountChoice, block_on, is_mounted};
use crate::output;

/// Show the state of a mount: its cache, its traffic, and how much of each repository is cached.
///
/// In a clone whose mount is missing, the command says which mount that is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,

    /// Print the status again every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    choice: MountChoice,
}

const WATCH_PERIOD: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.choice.mount.is_none() {
        check_objects_here()?;
    }
    block_on(async {
        loop {
            if let ControlAnswer::Status(status) = args.choice.ask(&ControlRequest::Status).await? {
                if args.json {
                    output::json(&status)?;
                } else {
                    for line in lines(&status) {
                        output::line(&line)?;
                    }
                }
            }
            if !args.watch {
                return Ok(());
            }
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    })
}

/// Fails if the repository around the current directory borrows objects that aren't there. git then
/// speaks only of missing objects, and nothing else tells the user why.
fn check_objects_here() -> Result<()> {
    match borrowed_here() {
        Some(BorrowedObjects::OfMounted(repository)) if !is_mounted(&repository)? => {
            let repository = repository.display().to_string();
            Err(CliError::CloneWithoutMount { repository }.into())
        }
        Some(BorrowedObjects::Own(objects)) if !objects.is_dir() => {
            Err(CliError::CopyWithoutObjects.into())
        }
        _ => Ok(()),
    }
}

fn lines(status: &StatusReport) -> Vec<String> {
    let traffic = &status.traffic;
    let mut lines = vec![
        format!(
            "{} from {} (process {}, version {})",
            status.mount_point.display(),
            status.daemons.join(", "),
            status.pid,
            status.version,
        ),
        format!(
            "cache   {} of {} in {}",
            output::bytes(status.cache_bytes),
            output::bytes(status.cache_max_bytes),
            status.cache_dir.display(),
        ),
        format!(
            "traffic {} in {} requests; readers waited for {} in {} requests; {} retries",
            output::bytes(traffic.fetched_bytes),
            traffic.requests,
            output::bytes(traffic.demand_bytes),
            traffic.demand_requests,
            traffic.retries,
        ),
    ];
    if let Some(outage) = &status.outage {
        let reason = output::cell(&outage.reason);
        lines.push(format!(
            "offline since {} ({}): {reason}",
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(outage.since)),
            age(outage.since),
        ));
    }
    if let Some(failure) = &status.cache_failure {
        lines.push(format!(
            "cache   has been unusable for {}, so nothing new is kept: {}",
            duration_since(failure.since),
            failure.reason,
        ));
    }
    lines.push(String::new());
    if status.repos.is_empty() {
        lines.push("No repository has been opened yet.".to_owned());
        return lines;
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "REPOSITORY",
        "COMMIT",
        "CACHED",
        "OF",
        "PARTS",
        "FETCHED",
        "REQUESTS",
        "CHECKED",
        "NOTES",
    ]);
    for repo in &status.repos {
        // Without this, a line break in a cell would start a new line of the table, and another
        // party could forge a row.
        table.add_row(row(repo).iter().map(|text| output::cell(text)));
    }
    lines.extend(table.lines());
    for read in status.repos.iter().flat_map(|repo| &repo.failed_reads) {
        let lasted = duration_since(read.failure.since);
        lines.push(format!(
            "reads of {} have failed for {lasted}: {}",
            output::cell(&read.path),
            read.failure.reason,
        ));
    }
    lines
}

fn row(repo: &RepoReport) -> Vec<String> {
    let cached: u64 = repo.parts.iter().map(|part| part.cached_bytes).sum();
    let parts: Vec<String> = repo
        .parts
        .iter()
        .map(|part| {
            format!(
                "{} {}%",
                part.part,
                percent(part.cached_bytes, part.total_bytes)
            )
        })
        .collect();
    let commit = repo.snapshot.map(|snapshot| snapshot.commit().to_string());
    let mut notes = Vec::new();
    if repo.is_pinned {
        notes.push("pinned".to_owned());
    }
    notes.extend(repo.last_error.clone());
    notes.extend(repo.notice.clone());
    vec![
        repo.repo.to_string(),
        commit.map_or("-".to_owned(), |commit| commit.chars().take(12).collect()),
        output::bytes(cached),
        output::bytes(repo.archive_bytes),
        parts.join(", "),
        output::bytes(repo.traffic.fetched_bytes),
        repo.traffic.requests.to_string(),
        repo.checked_at.map_or("-".to_owned(), age),
        notes.join(", "),
    ]
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(100)
}

/// Returns how long ago `at` was, in seconds since the epoch.
fn age(at: u64) -> String {
    format!("{} ago", duration_since(at))
}

/// Returns the time that has passed since `at`, in seconds since the epoch.
fn duration_since(at: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let passed = Duration::from_secs(now.saturating_sub(at));
    humantime::format_duration(passed).to_string()
}
