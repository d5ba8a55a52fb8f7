//! The report as text for people. The page contains it when it is loaded, and the script later
//! replaces it. It is plain text; only `page` turns it into markup.

use cachewfs_format::api::{
    FailureStatus, JobClass, JobStatus, RepoOverview, RepoStatus, SnapshotStatus,
};
use serde::Serialize;

use super::numbers::{count, size, span};
use super::report::Report;

/// An error is cut after this many characters. JSON and the log have the whole text.
const MAX_ERROR_CHARS: usize = 400;
/// This many characters of a commit's id are shown.
const SHORT_ID_CHARS: usize = 12;

/// The content of the page.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) tone: Tone,
    pub(super) headline: String,
    pub(super) summary: String,
    pub(super) tiles: Vec<Tile>,
    pub(super) tables: Vec<Table>,
}

/// The urgency of something. The text says it too, so the colour is never needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tone {
    Good,
    Busy,
    Bad,
}

impl Tone {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Bad => "bad",
        }
    }
}

/// A number with its name.
#[derive(Debug, Serialize)]
pub(super) struct Tile {
    pub(super) name: &'static str,
    pub(super) text: String,
}

/// The rows of the table with this id.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) id: &'static str,
    pub(super) rows: Vec<Row>,
}

/// A row of a table. The first cell is its heading.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Identifies the subject of the row, so that the script can update the row in place.
    pub(super) key: String,
    pub(super) tone: Tone,
    pub(super) cells: Vec<String>,
}

impl View {
    pub(super) fn of(report: &Report) -> Self {
        let (tone, headline) = headline(report);
        let table = |id, rows| Table { id, rows };
        Self {
            tone,
            headline,
            summary: format!(
                "Version {}, {}, up for {}",
                report.version,
                report.readiness,
                span(report.uptime_seconds)
            ),
            tiles: tiles(report),
            tables: vec![
                table("attention", attention(report)),
                table("repositories", repositories(report)),
                table("jobs", jobs(report)),
                table("traffic", traffic(&report.traffic)),
                table("tiers", traffic(&report.tiers)),
                table("git", git(report)),
                table("snapshots", snapshots(report)),
            ],
        }
    }
}

fn headline(report: &Report) -> (Tone, String) {
    let (total, failing) = (report.repositories_total, report.failing_total);
    let many = if total == 1 {
        "repository"
    } else {
        "repositories"
    };
    match (report.readiness, failing, total) {
        ("starting", ..) => (Tone::Busy, "Starting: looking for mirrors".to_owned()),
        ("stopping", ..) => (Tone::Busy, "Stopping".to_owned()),
        (_, 0, 0) => {
            let text =
                "No repositories yet: one appears when a client clones it or requests its snapshot";
            (Tone::Good, text.to_owned())
        }
        (_, 0, 1) => (Tone::Good, "The repository is healthy".to_owned()),
        (_, 0, _) => (Tone::Good, format!("All {total} {many} are healthy")),
        (_, 1, _) => (Tone::Bad, format!("1 of {total} {many} needs attention")),
        _ => (
            Tone::Bad,
            format!("{failing} of {total} {many} need attention"),
        ),
    }
}

fn tiles(report: &Report) -> Vec<Tile> {
    let running: i64 = report.jobs.iter().map(|jobs| jobs.running).sum();
    let waiting: i64 = report.jobs.iter().map(|jobs| jobs.waiting).sum();
    let sent = report.traffic.iter().map(|traffic| traffic.bytes).sum();
    let lags = report.repositories.iter();
    let lag = lags.filter_map(|repository| repository.lag_seconds).max();
    let known = |bytes: Option<u64>| bytes.map_or_else(|| "…".to_owned(), size);
    let tile = |name, text| Tile { name, text };
    vec![
        tile("Jobs", jobs_in_words(running, waiting)),
        tile(
            "Oldest check of upstream",
            lag.map_or_else(|| "…".to_owned(), span),
        ),
        tile("Sent since the start", size(sent)),
        tile("Disk: mirrors", known(report.disk.mirrors_bytes)),
        tile("Disk: snapshots", known(report.disk.store_bytes)),
        tile("Disk: free", known(report.disk.free_bytes)),
    ]
}

fn jobs_in_words(running: i64, waiting: i64) -> String {
    match (running, waiting) {
        (0, 0) => "none".to_owned(),
        (running, 0) => format!("{running} running"),
        (running, waiting) => format!("{running} running, {waiting} waiting"),
    }
}

fn attention(report: &Report) -> Vec<Row> {
    let row = |key: String, repo: String, failure: &FailureStatus, is_tried: bool| Row {
        key,
        tone: Tone::Bad,
        cells: vec![
            repo,
            sentence(&failure.message),
            times(failure.tries),
            if is_tried {
                "now".to_owned()
            } else {
                format!("in {}", next_try(report, failure))
            },
        ],
    };
    let rows = |status: &RepoStatus| {
        let repo = status.repo.to_string();
        let of_mirror = status.failure.as_ref();
        let of_mirror =
            of_mirror.map(|it| row(repo.clone(), repo.clone(), it, status.job.is_some()));
        let of_lfs = status.lfs_failure().map(|it| {
            let key = format!("{repo} lfs");
            row(key, repo.clone(), it, status.is_lfs_running())
        });
        let notice = status.published.as_ref().and_then(|it| it.notice.as_ref());
        let of_work_tree = notice.map(|notice| Row {
            key: format!("{repo} work tree"),
            tone: Tone::Busy,
            cells: vec![
                repo.clone(),
                format!("{notice}."),
                "in the current snapshot".to_owned(),
                "with the next snapshot".to_owned(),
            ],
        });
        of_mirror.into_iter().chain(of_lfs).chain(of_work_tree)
    };
    let all = report.repositories.iter().map(|of| &of.status);
    let mirrored = all.filter(|status| status.has_mirror);
    mirrored.flat_map(rows).collect()
}

fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let mut text = first.unwrap_or_default();
    text.extend(letters.by_ref().take(MAX_ERROR_CHARS));
    text.push_str(if letters.next().is_some() { "…" } else { "." });
    text
}

fn times(tries: u32) -> String {
    match tries {
        // A requested refresh begins to count anew.
        0 | 1 => "once".to_owned(),
        tries => format!("{tries} times in a row"),
    }
}

fn next_try(report: &Report, failure: &FailureStatus) -> String {
    span(failure.next_try_at.saturating_sub(report.now))
}

fn repositories(report: &Report) -> Vec<Row> {
    let row = |overview: &RepoOverview| {
        let status = &overview.status;
        let current = overview.snapshots.first();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let lag = overview.lag_seconds.map(|lag| format!("{} ago", span(lag)));
        let kept = || overview.snapshots_total.to_string();
        Row {
            key: status.repo.to_string(),
            tone: if status.is_failing() {
                Tone::Bad
            } else if status.job.is_some() || status.is_lfs_running() {
                Tone::Busy
            } else {
                Tone::Good
            },
            cells: vec![
                status.repo.to_string(),
                status.state.as_str().to_owned(),
                or_none(lag),
                now(report, status),
                or_none(current.map(short_id)),
                or_none(current.map(|current| age(report.now, current))),
                or_none(current.map(|current| size(current.bytes))),
                or_none(current.filter(|_| status.has_mirror).map(shared)),
                or_none(status.has_mirror.then(kept)),
            ],
        }
    };
    report.repositories.iter().map(row).collect()
}

fn now(report: &Report, status: &RepoStatus) -> String {
    match (&status.job, &status.failure) {
        (Some(job), _) => activity(job),
        (None, Some(failure)) => format!("failed, retry in {}", next_try(report, failure)),
        (None, None) if status.is_lfs_running() => "getting LFS objects".to_owned(),
        (None, None) if !status.has_mirror => "no mirror here".to_owned(),
        (None, None) => "idle".to_owned(),
    }
}

fn activity(job: &JobStatus) -> String {
    let (doing, waiting) = match job.class {
        JobClass::Clone => ("cloning", "waiting to clone"),
        JobClass::Update => ("updating", "waiting to update"),
        JobClass::Publish => ("publishing", "waiting to publish"),
        JobClass::Maintain => ("maintaining", "waiting to maintain"),
        JobClass::Lfs => ("getting LFS objects", "waiting to get LFS objects"),
    };
    let what = match &job.waits_for {
        Some(daemon) => format!("waiting for {daemon} to publish"),
        None if job.is_running => doing.to_owned(),
        None => waiting.to_owned(),
    };
    match job.since_seconds {
        0..3 => what,
        seconds => format!("{what}, {}", span(seconds)),
    }
}

fn jobs(report: &Report) -> Vec<Row> {
    let row = |jobs: &super::report::JobsReport| Row {
        key: jobs.class.as_str().to_owned(),
        tone: Tone::Good,
        cells: vec![
            jobs.class.as_str().to_owned(),
            jobs.running.to_string(),
            jobs.waiting.to_string(),
        ],
    };
    report.jobs.iter().map(row).collect()
}

fn traffic(traffic: &[super::report::TrafficReport]) -> Vec<Row> {
    let row = |of: &super::report::TrafficReport| Row {
        key: of.name.to_owned(),
        tone: Tone::Good,
        cells: vec![of.name.to_owned(), count(of.requests), size(of.bytes)],
    };
    traffic.iter().map(row).collect()
}

fn git(report: &Report) -> Vec<Row> {
    let git = &report.git;
    let rows = [
        ("from the mirror", git.mirror),
        ("passed on to upstream", git.passed_on),
        ("with a shared answer of upstream", git.shared),
        ("from a mirror that may be stale", git.stale),
    ];
    let row = |(name, requests): (&str, u64)| Row {
        key: name.to_owned(),
        tone: Tone::Good,
        cells: vec![name.to_owned(), count(requests)],
    };
    rows.into_iter().map(row).collect()
}

fn snapshots(report: &Report) -> Vec<Row> {
    let rows = |overview: &RepoOverview| {
        let repo = overview.status.repo.to_string();
        let row = |snapshot: &SnapshotStatus| Row {
            key: format!("{repo} {}", snapshot.snapshot),
            tone: Tone::Good,
            cells: vec![
                short_id(snapshot),
                repo.clone(),
                age(report.now, snapshot),
                size(snapshot.bytes),
                shared(snapshot),
                size(snapshot.bytes - snapshot.shared_bytes.unwrap_or(0)),
            ],
        };
        overview.snapshots.iter().map(row).collect::<Vec<_>>()
    };
    report.repositories.iter().flat_map(rows).collect()
}

fn short_id(snapshot: &SnapshotStatus) -> String {
    let id = snapshot.snapshot.to_string();
    let (commit, refs) = id.split_once('-').unwrap_or((&id, ""));
    let mut short: String = commit.chars().take(SHORT_ID_CHARS).collect();
    if !refs.is_empty() {
        short.push('-');
        short.extend(refs.chars().take(4));
    }
    short
}

fn shared(snapshot: &SnapshotStatus) -> String {
    match snapshot.shared_bytes {
        // The oldest snapshot, or the one before is deleted or not known here.
        None => "–".to_owned(),
        // Rounded down: "100.0 %" would say that nothing is new.
        Some(shared) => {
            let tenths = shared.saturating_mul(1000) / snapshot.bytes.max(1);
            format!("{}.{} %", tenths / 10, tenths % 10)
        }
    }
}

fn age(now: u64, snapshot: &SnapshotStatus) -> String {
    format!("{} ago", span(now.saturating_sub(snapshot.created_at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut() {
        assert_eq!(sentence("git failed"), "Git failed.");
        let long = sentence(&"ä".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_ERROR_CHARS + 2);
        assert!(long.ends_with('…'));
    }
}
