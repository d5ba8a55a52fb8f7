//! `cachewfs status`: the state of a mount as text or JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest, RepoReport, StatusReport};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::borrowing::{BorrowedObjects, borrowed_by};
use crate::error::CliError;
use crate::mount_table::is_mounted;
use crate::mounts::{MountChoice, block_on};
use crate::output;

/// Show the state of a mount: its cache, its traffic, and how much of each repository is cached
///
///   cachewfs status                     the mount here, or the only one
///   cachewfs status --mount /cachewfs
///   cachewfs status --watch             again every two seconds
///   cachewfs status --json | jq '.repos[] | {repo, checked_at}'
///
/// In a clone whose mount is missing, the command says which mount that is.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
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
    match borrowed_by(None) {
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
    if let Some(at) = status.cache_short_at {
        lines.push(format!(
            "cache   is too small: {} it evicted bytes that had been used within the minute \
             before; mount with a larger cache_size",
            age(at),
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
    ]);
    for repo in &status.repos {
        // Without this, a line break in a cell would start a new line of the table, and another
        // party could forge a row.
        table.add_row(row(repo).iter().map(|text| output::cell(text)));
    }
    lines.extend(table.lines());
    // Below the table: a note is a sentence, and would make each row too wide for a terminal.
    for repo in &status.repos {
        let name = &repo.repo;
        lines.extend(notes(repo).map(|note| format!("{name}: {note}")));
    }
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
    // Not the length of the archive: the mount never fetches some of its bytes.
    let total: u64 = repo.parts.iter().map(|part| part.total_bytes).sum();
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
    vec![
        repo.repo.to_string(),
        commit.map_or("-".to_owned(), |commit| commit.chars().take(12).collect()),
        output::bytes(cached),
        output::bytes(total),
        parts.join(", "),
        output::bytes(repo.traffic.fetched_bytes),
        repo.traffic.requests.to_string(),
        repo.checked_at.map_or("-".to_owned(), age),
    ]
}

/// Returns the sentences about a repository that have no column in the table.
fn notes(repo: &RepoReport) -> impl Iterator<Item = String> {
    let unhydrated = repo.unhydrated.as_ref();
    let notes = [
        repo.is_pinned.then(|| "pinned".to_owned()),
        repo.last_error.clone(),
        unhydrated.map(|reason| format!("not fetched in the background: {reason}")),
        repo.notice.clone(),
    ];
    notes.into_iter().flatten()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_lines_of_their_own() {
        let traffic = r#"{"requests":0,"fetched_bytes":0,"demand_bytes":0,"demand_requests":0,
            "retries":0}"#;
        let report = format!(
            r#"{{"version":"1","pid":7,"mount_point":"/mnt","daemons":["http://h"],
            "cache_dir":"/c","cache_bytes":0,"cache_max_bytes":1048576,"cache_short_at":1,
            "traffic":{traffic},"repos":[{{"repo":"host/repo","snapshot":null,"is_pinned":true,
            "archive_bytes":0,"parts":[],"catch_ups":0,"checked_at":null,"clones":[],
            "last_error":"timed out","unhydrated":"no room",
            "traffic":{traffic}}}]}}"#
        );
        let status: StatusReport = serde_json::from_str(&report).unwrap();

        let lines = lines(&status);

        let short = "ago it evicted bytes that had been used within the minute before";
        assert!(lines.iter().any(|line| line.contains(short)), "{lines:?}");
        let notes = [
            "host/repo: pinned",
            "host/repo: timed out",
            "host/repo: not fetched in the background: no room",
        ];
        assert!(lines.ends_with(&notes.map(str::to_owned)), "{lines:?}");
    }

    #[test]
    fn a_repository_that_is_cached_as_a_whole_says_so() {
        let report = r#"{"repo":"host/repo","snapshot":null,"is_pinned":true,"archive_bytes":9000,
            "parts":[{"part":"refs","cached_bytes":5,"total_bytes":5},
            {"part":"tip","cached_bytes":70,"total_bytes":70}],"catch_ups":0,"checked_at":null,
            "clones":[],"last_error":null,"unhydrated":null,"traffic":{"requests":0,
            "fetched_bytes":0,"demand_bytes":0,"demand_requests":0,"retries":0}}"#;

        let row = row(&serde_json::from_str(report).unwrap());

        assert_eq!(row[2..5], ["75 B", "75 B", "refs 100%, tip 100%"]);
    }
}
