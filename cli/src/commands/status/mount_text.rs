//! The text about mounts: a few lines about each, and a table of its repositories.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cachewfs_fuse::control::protocol::{RepoReport, StatusReport, TrafficReport};

use super::failure_lines;
use super::layout::{Column, table, wrap};
use super::watch::{Rate, Rates};
use crate::mounts::MountState;
use crate::output;

/// At most this many of the processes that fetched something lately.
const SHOWN_PROCESSES: usize = 5;

/// Returns the text about all mounts.
pub(super) fn lines(states: &[MountState], rates: &Rates, width: Option<usize>) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, state) in states.iter().enumerate() {
        if number > 0 {
            lines.push(String::new());
        }
        match &state.status {
            Ok(status) => lines.extend(lines_of(status, rates, width)),
            Err(error) => {
                let failure = failure_lines(state, error);
                lines.extend(failure.iter().flat_map(|line| wrap(line, width)));
            }
        }
    }
    lines
}

fn lines_of(status: &StatusReport, rates: &Rates, width: Option<usize>) -> Vec<String> {
    let mut lines: Vec<String> = mount_lines(status, rates)
        .iter()
        .flat_map(|line| wrap(line, width))
        .collect();
    lines.push(String::new());
    if status.repos.is_empty() {
        lines.push("No repository has been opened yet.".to_owned());
        return lines;
    }
    lines.extend(table(columns(status, rates), width));
    // Below the table: a note is a sentence, and would make each row too wide for a terminal.
    for repo in &status.repos {
        let name = &repo.repo;
        let notes = notes(repo).into_iter();
        lines.extend(notes.flat_map(|note| wrap(&format!("{name}: {note}"), width)));
    }
    lines
}

/// Returns the lines about the mount itself.
fn mount_lines(status: &StatusReport, rates: &Rates) -> Vec<String> {
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
        traffic(&status.traffic),
    ];
    if let Some(rate) = rates.of_mount(&status.mount_point) {
        lines.push(format!(
            "now     {}, {} requests/s",
            rate.bytes(),
            rate.requests()
        ));
    }
    if let Some(passthrough) = &status.passthrough {
        lines.push(match &passthrough.reason {
            None => "passthrough is in use: the kernel reads complete files itself".to_owned(),
            Some(reason) => format!("passthrough is not in use: {reason}"),
        });
    }
    for process in status.processes.iter().take(SHOWN_PROCESSES) {
        lines.push(format!(
            "lately  {} in {} requests for {} (process {}), the last {}",
            output::bytes(process.fetched_bytes),
            process.requests,
            output::cell(&process.name),
            process.process,
            age(process.last_at),
        ));
    }
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
    lines
}

fn columns(status: &StatusReport, rates: &Rates) -> Vec<Column> {
    let repos = &status.repos;
    let column = |title, importance, cell: &dyn Fn(&RepoReport) -> String| {
        Column::new((title, importance), repos.iter().map(cell))
    };
    let mut columns = vec![
        column("REPOSITORY", 9, &|repo| repo.repo.to_string()),
        column("COMMIT", 2, &commit),
        column("CACHED", 8, &|repo| output::bytes(cached_and_total(repo).0)),
        column("OF", 7, &|repo| output::bytes(cached_and_total(repo).1)),
        column("PARTS", 1, &parts),
        column("FETCHED", 5, &|repo| {
            output::bytes(repo.traffic.fetched_bytes)
        }),
        column("REQUESTS", 3, &|repo| repo.traffic.requests.to_string()),
        column("CHECKED", 4, &|repo| {
            repo.checked_at.map_or("-".to_owned(), age)
        }),
    ];
    if rates.of_mount(&status.mount_point).is_some() {
        let rate_of = |repo: &RepoReport| rates.of_repo(&status.mount_point, &repo.repo);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        columns.push(column("NOW", 6, &|repo| {
            or_dash(rate_of(repo).map(Rate::bytes))
        }));
        columns.push(column("REQUESTS/S", 6, &|repo| {
            or_dash(rate_of(repo).map(Rate::requests))
        }));
    }
    columns
}

/// Returns the line about what was fetched of a mount or a repository.
pub(super) fn traffic(traffic: &TrafficReport) -> String {
    format!(
        "traffic {} in {} requests; readers waited for {} in {} requests; {} retries",
        output::bytes(traffic.fetched_bytes),
        traffic.requests,
        output::bytes(traffic.demand_bytes),
        traffic.demand_requests,
        traffic.retries,
    )
}

pub(super) fn commit(repo: &RepoReport) -> String {
    let commit = repo.snapshot.map(|snapshot| snapshot.commit().to_string());
    commit.map_or("-".to_owned(), |commit| commit.chars().take(12).collect())
}

/// Returns how many bytes of a repository are cached, and of how many. The mount never fetches some
/// bytes of the archive, so its length is not the total.
pub(super) fn cached_and_total(repo: &RepoReport) -> (u64, u64) {
    let cached = repo.parts.iter().map(|part| part.cached_bytes).sum();
    let total = repo.parts.iter().map(|part| part.total_bytes).sum();
    (cached, total)
}

fn parts(repo: &RepoReport) -> String {
    let parts = repo.parts.iter().map(|part| {
        let percent = percent(part.cached_bytes, part.total_bytes);
        format!("{} {percent}%", part.part)
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Returns the sentences about a repository that have no column in the table.
pub(super) fn notes(repo: &RepoReport) -> Vec<String> {
    let unhydrated = repo.unhydrated.as_ref();
    let notes = [
        repo.is_pinned.then(|| "pinned".to_owned()),
        repo.last_error.clone(),
        unhydrated.map(|reason| format!("not fetched in the background: {reason}")),
        repo.notice.clone(),
    ];
    let failed_reads = repo.failed_reads.iter().map(|read| {
        let lasted = duration_since(read.failure.since);
        let (path, reason) = (output::cell(&read.path), &read.failure.reason);
        format!("reads of {path} have failed for {lasted}: {reason}")
    });
    notes.into_iter().flatten().chain(failed_reads).collect()
}

/// Returns the share in percent. It is 100 only if nothing is missing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(100)
}

/// Returns how long ago `at` was, in seconds since the epoch.
pub(super) fn age(at: u64) -> String {
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
    use crate::error::CliError;
    use crate::testing::{repo_json, status_of};

    fn text(mut status: StatusReport, width: Option<usize>) -> Vec<String> {
        status.cache_short_at = Some(1);
        let state = MountState {
            mount_point: "/mnt".into(),
            status: Ok(Box::new(status)),
        };
        lines(&[state], &Rates::default(), width)
    }

    #[test]
    fn notes_have_lines_of_their_own() {
        let repo = repo_json(
            "host/repo",
            r#""snapshot":null,"parts":[],"clones":[],"last_error":"timed out","unhydrated":"no room",
            "failed_reads":[{"path":"file","reason":"gone","since":1}]"#,
        );
        let status = status_of(&repo.replace(r#""is_pinned":false"#, r#""is_pinned":true"#));

        let lines = text(status, None);

        let short = "ago it evicted bytes that had been used within the minute before";
        assert!(lines.iter().any(|line| line.contains(short)), "{lines:?}");
        let (read, others) = lines.split_last().unwrap();
        let notes = [
            "host/repo: pinned",
            "host/repo: timed out",
            "host/repo: not fetched in the background: no room",
        ];
        assert!(others.ends_with(&notes.map(str::to_owned)), "{lines:?}");
        assert!(
            read.starts_with("host/repo: reads of file have failed for "),
            "{read}"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let parts = [
            "refs",
            "pack indexes",
            "tip",
            "increments",
            "work tree",
            "recent",
            "commits",
        ];
        let parts =
            parts.map(|part| format!(r#"{{"part":"{part}","cached_bytes":5,"total_bytes":50}}"#));
        let error = "the daemon can't reach upstream: ".repeat(10);
        let repo = repo_json(
            "github.com/organisation/repository",
            &format!(
                r#""snapshot":"{}","parts":[{}],"clones":[],"last_error":"{error}"#,
                "0".repeat(40),
                parts.join(",")
            ),
        );
        let repo = repo.replace(&format!("{error}}}"), &format!("{error}\"}}"));

        for width in [40, 80, 120] {
            let lines = text(status_of(&repo), Some(width));
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}: {lines:#?}"
            );
            assert!(
                lines.iter().any(|line| line.contains("CACHED")),
                "{width}: {lines:#?}"
            );
        }
        let whole = text(status_of(&repo), None);
        let note = format!("github.com/organisation/repository: {error}");
        assert_eq!(whole.last(), Some(&note));
        assert!(
            whole.iter().any(|line| line.contains("commits 10%")),
            "{whole:#?}"
        );
    }

    #[test]
    fn a_mount_that_does_not_answer_is_shown_beside_the_others() {
        let silent = CliError::SilentMount {
            mount_point: "/silent".to_owned(),
            seconds: 6,
        };
        let states = [
            MountState {
                mount_point: "/silent".into(),
                status: Err(silent.into()),
            },
            MountState {
                mount_point: "/mnt".into(),
                status: Ok(Box::new(status_of(""))),
            },
        ];

        let lines = lines(&states, &Rates::default(), None);

        assert!(lines[0].starts_with("/silent is silent: the mount at /silent has not answered"));
        assert!(lines[1].contains("kill -CONT"), "{lines:?}");
        assert!(lines[3].starts_with("/mnt from http://h "), "{lines:?}");
    }

    #[test]
    fn a_repository_that_is_cached_as_a_whole_says_so() {
        let repo = repo_json(
            "host/repo",
            r#""snapshot":null,"clones":[],"last_error":null,
            "parts":[{"part":"refs","cached_bytes":5,"total_bytes":5},
            {"part":"tip","cached_bytes":70,"total_bytes":70}]"#,
        );

        let status = status_of(&repo);

        assert_eq!(cached_and_total(&status.repos[0]), (75, 75));
        assert_eq!(parts(&status.repos[0]), "refs 100%, tip 100%");
    }
}
