//! `cachewfs status URL`: one repository in detail, with a map of which parts are local.

use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{PartReport, RepoReport, StatusReport};

use super::layout::{Column, table, wrap};
use super::mount_text::{age, cached_and_total, commit, notes, percent, traffic};
use crate::mounts::MountState;
use crate::output;

/// The width of a bar in characters.
const BAR_LEN: u64 = 20;

/// Returns the text about `repo`, which the reports have.
pub(super) fn lines(states: &[MountState], repo: &RepoName, width: Option<usize>) -> Vec<String> {
    let statuses = states.iter().filter_map(|state| state.status.as_ref().ok());
    let mut lines = Vec::new();
    for status in statuses {
        let reports = status.repos.iter().filter(|report| report.repo == *repo);
        lines.extend(reports.flat_map(|report| lines_of(status, report, width)));
    }
    lines
}

fn lines_of(status: &StatusReport, repo: &RepoReport, width: Option<usize>) -> Vec<String> {
    let path = status.mount_point.join(repo.repo.as_str());
    let (cached, total) = cached_and_total(repo);
    let (cached_text, total_text) = (output::bytes(cached), output::bytes(total));
    let mut texts = vec![
        format!("{} in {}", repo.repo, path.display()),
        format!("commit  {}", commit(repo)),
        format!(
            "local   {cached_text} of {total_text} ({}%)",
            percent(cached, total)
        ),
        traffic(&repo.traffic),
    ];
    if let Some(at) = repo.checked_at {
        let (age, count) = (age(at), repo.catch_ups);
        texts.push(format!(
            "checked {age}; moved to a newer snapshot {count} times since the mount started"
        ));
    }
    let clones = repo.clones.iter();
    texts.extend(clones.map(|clone| format!("clone   {}", clone.display())));
    texts.extend(notes(repo));
    let mut lines: Vec<String> = texts.iter().flat_map(|text| wrap(text, width)).collect();
    if !repo.parts.is_empty() {
        lines.push(String::new());
        lines.extend(map(&repo.parts, width));
    }
    lines
}

/// Returns the table of parts, in the order in which the archive has them.
fn map(parts: &[PartReport], width: Option<usize>) -> Vec<String> {
    let column = |title, importance, cell: &dyn Fn(&PartReport) -> String| {
        Column::new((title, importance), parts.iter().map(cell))
    };
    let columns = vec![
        column("PART", 9, &|part| part.part.clone()),
        column("LOCAL", 7, &|part| output::bytes(part.cached_bytes)),
        column("OF", 6, &|part| output::bytes(part.total_bytes)),
        column("", 8, &|part| bar(part.cached_bytes, part.total_bytes)),
        column("%", 5, &|part| {
            percent(part.cached_bytes, part.total_bytes).to_string()
        }),
    ];
    table(columns, width)
}

/// Returns a bar that is full only if nothing is missing, and empty only if all is missing.
fn bar(part: u64, whole: u64) -> String {
    let filled = (part * BAR_LEN).checked_div(whole).unwrap_or(BAR_LEN);
    let filled = filled.max(u64::from(part > 0)).min(BAR_LEN);
    let repeat = |text: &str, count: u64| text.repeat(usize::try_from(count).unwrap_or_default());
    repeat("#", filled) + &repeat(".", BAR_LEN - filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{repo_json, status_of};

    #[test]
    fn the_map_shows_how_much_of_each_part_is_local() {
        let repo = repo_json(
            "host/org/repo",
            r#""snapshot":null,"last_error":"timed out","clones":["/work/clone"],
            "parts":[{"part":"refs","cached_bytes":2048,"total_bytes":2048},
            {"part":"history","cached_bytes":1,"total_bytes":4096},
            {"part":"work tree","cached_bytes":1024,"total_bytes":2048},
            {"part":"trees","cached_bytes":0,"total_bytes":7}]"#,
        );
        let state = MountState {
            mount_point: "/mnt".into(),
            status: Ok(Box::new(status_of(&repo))),
        };

        let name = RepoName::parse("host/org/repo").unwrap();
        let text = lines(&[state], &name, None);

        assert_eq!(text[0], "host/org/repo in /mnt/host/org/repo");
        assert_eq!(text[2], "local   3.0 KiB of 8.0 KiB (37%)");
        assert!(
            text.contains(&"clone   /work/clone".to_owned()),
            "{text:#?}"
        );
        assert!(text.contains(&"timed out".to_owned()), "{text:#?}");
        let bars: Vec<_> = text[text.len() - 4..]
            .iter()
            .map(|line| line.split_whitespace().rev().take(2).collect::<Vec<_>>())
            .collect();
        assert_eq!(bars[0], ["100", "####################"], "{text:#?}");
        assert_eq!(bars[1], ["0", "#..................."], "{text:#?}");
        assert_eq!(bars[2], ["50", "##########.........."], "{text:#?}");
        assert_eq!(bars[3], ["0", "...................."], "{text:#?}");
    }
}
