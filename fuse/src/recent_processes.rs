//! [`RecentProcesses`]: which processes fetched how much lately, for `cachewfs status`.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;

use crate::caller::Process;
use crate::moment::Moment;
use crate::report::ProcessReport;

/// At most this many processes. Beyond that, the one that has fetched nothing for the longest time
/// is forgotten.
const MAX_PROCESSES: usize = 64;
/// How many minutes count as lately, the present one included.
const MINUTES: u64 = 10;

/// The processes that fetched something lately.
#[derive(Debug)]
pub(crate) struct RecentProcesses {
    started_at: Instant,
    /// The latest last.
    processes: Mutex<Vec<Recent>>,
}

#[derive(Debug)]
struct Recent {
    process: Process,
    /// The counts of each minute in which it fetched something.
    minutes: VecDeque<Minute>,
    last_at: Moment,
}

#[derive(Debug)]
struct Minute {
    /// The number of the minute since the mount started.
    number: u64,
    requests: u64,
    bytes: u64,
}

impl Default for RecentProcesses {
    fn default() -> Self {
        Self {
            started_at: Instant::now(),
            processes: Mutex::default(),
        }
    }
}

impl RecentProcesses {
    /// Counts requests that were sent for `process`, and bytes of their answers.
    pub(crate) fn note(&self, process: &Process, (requests, bytes): (u64, u64)) {
        self.note_at(process, (requests, bytes), self.minute());
    }

    /// Returns the processes that fetched something lately, and first the one that fetched most.
    pub(crate) fn report(&self) -> Vec<ProcessReport> {
        self.report_at(self.minute())
    }

    fn minute(&self) -> u64 {
        self.started_at.elapsed().as_secs() / 60
    }

    fn note_at(&self, process: &Process, (requests, bytes): (u64, u64), number: u64) {
        let mut processes = self.processes.lock();
        let is_same = |recent: &Recent| recent.process.id == process.id;
        let known = processes.iter().position(is_same);
        let mut recent = match known {
            Some(at) => processes.remove(at),
            None => Recent {
                process: process.clone(),
                minutes: VecDeque::new(),
                last_at: Moment::now(),
            },
        };
        // A process that has just been forked has the name of its parent.
        recent.process.name.clone_from(&process.name);
        recent.last_at = Moment::now();
        recent.forget_before(number);
        match recent.minutes.back_mut() {
            Some(minute) if minute.number == number => {
                minute.requests += requests;
                minute.bytes += bytes;
            }
            _ => recent.minutes.push_back(Minute {
                number,
                requests,
                bytes,
            }),
        }
        if processes.len() >= MAX_PROCESSES {
            processes.remove(0);
        }
        processes.push(recent);
    }

    fn report_at(&self, number: u64) -> Vec<ProcessReport> {
        let mut processes = self.processes.lock();
        processes.retain_mut(|recent| {
            recent.forget_before(number);
            !recent.minutes.is_empty()
        });
        let reports = processes.iter().map(|recent| ProcessReport {
            process: recent.process.id,
            name: recent.process.name.clone(),
            fetched_bytes: recent.minutes.iter().map(|minute| minute.bytes).sum(),
            requests: recent.minutes.iter().map(|minute| minute.requests).sum(),
            last_at: recent.last_at.seconds_since_epoch(),
        });
        let mut reports: Vec<_> = reports.collect();
        reports.sort_by_key(|report| std::cmp::Reverse(report.fetched_bytes));
        reports
    }
}

impl Recent {
    /// Forgets the minutes that are too long ago in the minute `number`.
    fn forget_before(&mut self, number: u64) {
        let first = (number + 1).saturating_sub(MINUTES);
        while self
            .minutes
            .front()
            .is_some_and(|minute| minute.number < first)
        {
            self.minutes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: u32) -> Process {
        let name = format!("p{id}");
        Process { id, name }
    }

    fn shown(recent: &RecentProcesses, minute: u64) -> Vec<(u32, u64, u64)> {
        let reports = recent.report_at(minute).into_iter();
        let shown = reports.map(|report| (report.process, report.requests, report.fetched_bytes));
        shown.collect()
    }

    #[test]
    fn only_what_was_fetched_lately_counts() {
        let recent = RecentProcesses::default();

        recent.note_at(&process(1), (1, 0), 0);
        recent.note_at(&process(1), (0, 500), 0);
        recent.note_at(&process(2), (1, 100), 4);
        recent.note_at(&process(1), (1, 30), 9);

        assert_eq!(shown(&recent, 9), [(1, 2, 530), (2, 1, 100)]);
        assert_eq!(shown(&recent, 10), [(2, 1, 100), (1, 1, 30)]);
        assert_eq!(shown(&recent, 14), [(1, 1, 30)]);
        assert_eq!(shown(&recent, 19), []);
    }

    #[test]
    fn the_number_of_processes_is_bounded() {
        let recent = RecentProcesses::default();
        let count = u32::try_from(MAX_PROCESSES).unwrap();

        for id in 0..=count {
            recent.note_at(&process(id), (1, 1), 0);
            recent.note_at(&process(0), (1, 1), 0);
        }

        let ids: Vec<_> = shown(&recent, 0).iter().map(|(id, _, _)| *id).collect();
        assert_eq!(ids.len(), MAX_PROCESSES);
        assert!(
            ids.contains(&0) && !ids.contains(&1) && ids.contains(&count),
            "{ids:?}"
        );
    }
}
