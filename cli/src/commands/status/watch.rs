//! `cachewfs status --watch`: rates, and a text that is drawn again in its place.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::TrafficReport;

use crate::mounts::MountState;
use crate::output;

/// Moves the cursor to the first column of the first line.
const HOME: &str = "\x1b[H";
/// Erases the rest of a line.
const ERASE_LINE: &str = "\x1b[K";
/// Erases everything below the cursor.
const ERASE_BELOW: &str = "\x1b[J";

/// A rate of traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    bytes: u64,
    /// Tenths of requests, each second.
    tenths_of_requests: u64,
}

/// How much each mount and repository fetched between the last two reports.
#[derive(Debug, Default)]
pub(super) struct Rates {
    before: Option<(Instant, HashMap<Place, TrafficReport>)>,
    rates: HashMap<Place, Rate>,
}

/// A mount, or a repository in one.
type Place = (PathBuf, Option<RepoName>);

impl Rates {
    /// Compares the counters of these reports with those of the last call.
    pub(super) fn note(&mut self, states: &[MountState]) {
        self.note_at(states, Instant::now());
    }

    fn note_at(&mut self, states: &[MountState], now: Instant) {
        let answers = states.iter().filter_map(|state| {
            let status = state.status.as_ref().ok()?;
            Some((&state.mount_point, status))
        });
        let mut counts = HashMap::new();
        for (point, status) in answers {
            counts.insert((point.clone(), None), status.traffic);
            for report in &status.repos {
                let place = (point.clone(), Some(report.repo.clone()));
                counts.insert(place, report.traffic);
            }
        }
        self.rates.clear();
        if let Some((at, before)) = &self.before {
            let passed = now.saturating_duration_since(*at);
            for (place, traffic) in &counts {
                // A repository that is new has fetched all of it since. A mount may be an old one
                // that was silent.
                let unknown = place.1.is_some().then(TrafficReport::default);
                let earlier = before.get(place).copied().or(unknown);
                if let Some(rate) = earlier.and_then(|earlier| Rate::of(earlier, *traffic, passed))
                {
                    self.rates.insert(place.clone(), rate);
                }
            }
        }
        self.before = Some((now, counts));
    }

    pub(super) fn of_mount(&self, mount_point: &Path) -> Option<Rate> {
        self.rates.get(&(mount_point.to_owned(), None)).copied()
    }

    pub(super) fn of_repo(&self, mount_point: &Path, repo: &RepoName) -> Option<Rate> {
        let place = (mount_point.to_owned(), Some(repo.clone()));
        self.rates.get(&place).copied()
    }
}

impl Rate {
    /// Returns `None` if the counters went back: another process serves the mount since.
    fn of(before: TrafficReport, after: TrafficReport, passed: Duration) -> Option<Self> {
        let millis = u64::try_from(passed.as_millis())
            .ok()
            .filter(|millis| *millis > 0)?;
        let bytes = after.fetched_bytes.checked_sub(before.fetched_bytes)?;
        let requests = after.requests.checked_sub(before.requests)?;
        Some(Self {
            bytes: bytes.saturating_mul(1000) / millis,
            tenths_of_requests: requests.saturating_mul(10_000) / millis,
        })
    }

    pub(super) fn bytes(self) -> String {
        format!("{}/s", output::bytes(self.bytes))
    }

    pub(super) fn requests(self) -> String {
        let tenths = self.tenths_of_requests;
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// The place where the text is drawn again and again.
#[derive(Debug, Default)]
pub(super) struct Screen {
    is_begun: bool,
}

impl Screen {
    /// Shows `lines` in the place of the last ones, or prints them below if the output is no
    /// terminal.
    pub(super) fn show(&mut self, lines: &[String]) -> Result<()> {
        let Some((_, height)) = output::terminal_size() else {
            if self.is_begun {
                output::line("")?;
            }
            self.is_begun = true;
            return lines.iter().try_for_each(|line| output::line(line));
        };
        let scroll = if self.is_begun { 0 } else { height };
        self.is_begun = true;
        output::write(frame(lines, height, scroll).as_bytes())
    }
}

/// Returns what to write to a terminal so that it shows `lines`. First scrolls by `scroll` lines:
/// the text that was there can then still be scrolled to.
///
/// Each line replaces the one in its place, and nothing is erased before: the text doesn't flicker.
/// No mode of the terminal is changed, so however the command ends, nothing has to be restored.
fn frame(lines: &[String], height: usize, scroll: usize) -> String {
    // The cursor is on the last line.
    let room = height.saturating_sub(1);
    let is_cut = lines.len() > room;
    let shown = if is_cut {
        room.saturating_sub(1)
    } else {
        lines.len()
    };
    let mut frame = "\n".repeat(scroll);
    frame.push_str(HOME);
    for line in lines.iter().take(shown) {
        frame.push_str(&output::printable_line(line));
        frame.push_str(ERASE_LINE);
        frame.push('\n');
    }
    if is_cut {
        let rest = lines.len() - shown;
        writeln!(frame, "… {rest} more lines{ERASE_LINE}").ok();
    }
    frame.push_str(ERASE_BELOW);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{repo_json, status_of};

    fn state(bytes: u64, requests: u64) -> Vec<MountState> {
        let repo = repo_json(
            "host/repo",
            r#""snapshot":null,"parts":[],"clones":[],"last_error":null"#,
        );
        let mut status = status_of(&repo);
        for traffic in [&mut status.traffic, &mut status.repos[0].traffic] {
            (traffic.fetched_bytes, traffic.requests) = (bytes, requests);
        }
        vec![MountState {
            mount_point: "/mnt".into(),
            status: Ok(Box::new(status)),
        }]
    }

    #[test]
    fn rates_are_those_since_the_last_report() {
        let mut rates = Rates::default();
        let repo = RepoName::parse("host/repo").unwrap();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let shown = |rates: &Rates| {
            let of_repo = rates.of_repo("/mnt".as_ref(), &repo);
            assert_eq!(rates.of_mount("/mnt".as_ref()), of_repo);
            of_repo.map(|rate| (rate.bytes(), rate.requests()))
        };

        rates.note_at(&state(1000, 10), begin);
        assert_eq!(shown(&rates), None);
        rates.note_at(&state(1000 + 4096, 13), after(2));
        let expected = ("2.0 KiB/s".to_owned(), "1.5".to_owned());
        assert_eq!(shown(&rates), Some(expected));
        // Another process serves the mount, and counts from 0.
        rates.note_at(&state(0, 0), after(4));
        assert_eq!(shown(&rates), None);
    }

    #[test]
    fn a_frame_replaces_the_last_one_and_fits() {
        let lines: Vec<_> = (0..5).map(|number| format!("line {number}")).collect();

        assert_eq!(
            frame(&lines[..2], 9, 2),
            "\n\n\x1b[Hline 0\x1b[K\nline 1\x1b[K\n\x1b[J"
        );
        assert_eq!(
            frame(&lines, 4, 0),
            "\x1b[Hline 0\x1b[K\nline 1\x1b[K\n… 3 more lines\x1b[K\n\x1b[J"
        );
    }
}
