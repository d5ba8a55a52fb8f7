//! The schedule: decides which waiting job runs next.
//!
//! There are two queues, each in the order of arrival: jobs that a request waits for, and periodic
//! jobs. Requested jobs go first. But after [`MAX_REQUESTED_IN_A_ROW`] of them a periodic job gets
//! a turn, so requests can't starve the periodic updates.
//!
//! From a queue, the schedule takes the first job that fits the limits. Jobs of a host at its limit
//! are skipped, so a slow host delays only itself. A repository waits for one turn at a time, so it
//! can't fill a queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// At most this many jobs of requests run before the oldest periodic job does.
const MAX_REQUESTED_IN_A_ROW: u32 = 3;

/// The kind of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobKind {
    Update,
    /// Clones or restores the mirror.
    Clone,
    Publish,
}

/// Whether a request waits for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Requested,
    Periodic,
}

/// A job that needs a turn.
#[derive(Clone, Debug)]
pub(super) struct ScheduledJob {
    /// The upstream host of the repository.
    pub(super) host: String,
    pub(super) kind: JobKind,
}

/// How many jobs may run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobLimits {
    /// At most this many updates and clones; at most half of them clones. A host without a running
    /// job gets one in any case, so that hosts that stall can't delay the others.
    pub(super) jobs: usize,
    /// At most this many updates and clones of one host; at most half of them clones.
    pub(super) jobs_per_host: usize,
    pub(super) publishes: usize,
}

/// The jobs that wait, and the number of jobs that run.
#[derive(Debug)]
pub(super) struct Schedule {
    limits: JobLimits,
    state: Mutex<ScheduleState>,
}

#[derive(Debug, Default)]
struct ScheduleState {
    requested: VecDeque<QueuedJob>,
    periodic: VecDeque<QueuedJob>,
    /// The number of turns for jobs of requests since the last periodic one.
    requested_in_a_row: u32,
    running: RunningJobs,
}

#[derive(Debug)]
struct QueuedJob {
    job: ScheduledJob,
    turn: oneshot::Sender<Turn>,
}

#[derive(Debug, Default)]
struct RunningJobs {
    publishes: usize,
    jobs: usize,
    clones: usize,
    hosts: HashMap<String, HostJobs>,
}

#[derive(Clone, Copy, Debug, Default)]
struct HostJobs {
    jobs: usize,
    clones: usize,
}

/// The right to run a job. Dropping it ends the job's turn and starts the next.
#[derive(Debug)]
pub(super) struct Turn {
    schedule: Arc<Schedule>,
    job: ScheduledJob,
}

impl Schedule {
    pub(super) fn new(limits: JobLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// Waits until `job` may run. Dropping the future removes the job from its queue.
    pub(super) async fn turn(self: &Arc<Self>, job: ScheduledJob, urgency: Urgency) -> Turn {
        let (turn, given) = oneshot::channel();
        let waiting = QueuedJob {
            job: job.clone(),
            turn,
        };
        match urgency {
            Urgency::Requested => self.state.lock().requested.push_back(waiting),
            Urgency::Periodic => self.state.lock().periodic.push_back(waiting),
        }
        self.give_turns();
        match given.await {
            Ok(turn) => turn,
            // Not reachable: an entry is removed from its queue only with a turn, or when its
            // receiver is gone. Never returning is safer than running without a turn.
            Err(_) => std::future::pending().await,
        }
    }

    fn give_turns(self: &Arc<Self>) {
        loop {
            let Some(next) = self.state.lock().take_next(self.limits) else {
                return;
            };
            let turn = Turn {
                schedule: Arc::clone(self),
                job: next.job,
            };
            // Sent without the lock. If the waiter is gone, `turn` is dropped right here, and its
            // drop takes the lock to give the turn to the next job.
            drop(next.turn.send(turn));
        }
    }
}

impl ScheduleState {
    fn take_next(&mut self, limits: JobLimits) -> Option<QueuedJob> {
        let (requested, periodic, running) =
            (&mut self.requested, &mut self.periodic, &mut self.running);
        let mut take = |queue: &mut VecDeque<QueuedJob>| {
            // Entries whose waiter has gone would otherwise take a turn.
            queue.retain(|waiting| !waiting.turn.is_closed());
            let has_room = |waiting: &QueuedJob| running.has_room(&waiting.job, limits);
            let next = queue.remove(queue.iter().position(has_room)?)?;
            running.add(&next.job);
            Some(next)
        };
        if self.requested_in_a_row < MAX_REQUESTED_IN_A_ROW
            && let Some(next) = take(requested)
        {
            self.requested_in_a_row += 1;
            return Some(next);
        }
        if let Some(next) = take(periodic) {
            self.requested_in_a_row = 0;
            return Some(next);
        }
        take(requested)
    }
}

impl RunningJobs {
    fn has_room(&self, job: &ScheduledJob, limits: JobLimits) -> bool {
        let host_jobs = self.hosts.get(&job.host).copied().unwrap_or_default();
        // The limit per host is strict. The limit for all hosts is not: a host without a running
        // job gets one beyond it. Otherwise, hosts that answer slowly could take all turns and stop
        // the updates of every other host.
        let has_room = host_jobs.jobs < limits.jobs_per_host
            && (self.jobs < limits.jobs || host_jobs.jobs == 0);
        match job.kind {
            JobKind::Update => has_room,
            // A clone may take hours. At most half of the turns are for clones, so that a burst of
            // new repositories leaves the rest to updates.
            JobKind::Clone => {
                has_room
                    && host_jobs.clones < limits.jobs_per_host.div_ceil(2)
                    && (self.clones < limits.jobs.div_ceil(2) || host_jobs.jobs == 0)
            }
            JobKind::Publish => self.publishes < limits.publishes,
        }
    }

    fn add(&mut self, job: &ScheduledJob) {
        if job.kind == JobKind::Publish {
            self.publishes += 1;
            return;
        }
        self.jobs += 1;
        self.clones += usize::from(job.kind == JobKind::Clone);
        let host_jobs = self.hosts.entry(job.host.clone()).or_default();
        host_jobs.jobs += 1;
        host_jobs.clones += usize::from(job.kind == JobKind::Clone);
    }

    fn remove(&mut self, job: &ScheduledJob) {
        if job.kind == JobKind::Publish {
            self.publishes -= 1;
            return;
        }
        self.jobs -= 1;
        self.clones -= usize::from(job.kind == JobKind::Clone);
        if let Some(host_jobs) = self.hosts.get_mut(&job.host) {
            host_jobs.jobs -= 1;
            host_jobs.clones -= usize::from(job.kind == JobKind::Clone);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schedule.state.lock().running.remove(&self.job);
        self.schedule.give_turns();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;

    fn job(host: &str, kind: JobKind) -> ScheduledJob {
        let host = host.to_owned();
        ScheduledJob { host, kind }
    }

    fn schedule(jobs: usize, jobs_per_host: usize) -> Arc<Schedule> {
        Schedule::new(JobLimits {
            jobs,
            jobs_per_host,
            publishes: 1,
        })
    }

    /// Returns whether a job gets a turn without waiting. Keeps the turn in `turns`.
    async fn gets_a_turn(
        schedule: &Arc<Schedule>,
        job: ScheduledJob,
        turns: &mut Vec<Turn>,
    ) -> bool {
        tokio::select! {
            biased;
            turn = schedule.turn(job, Urgency::Requested) => turns.push(turn),
            () = yield_now() => return false,
        }
        true
    }

    #[tokio::test]
    async fn each_kind_has_its_limit_and_a_busy_host_delays_no_other() {
        use JobKind::{Clone, Publish, Update};
        let schedule = schedule(5, 4);
        let mut turns = Vec::new();

        for (host, kind, expected) in [
            ("a", Clone, true),
            ("a", Clone, true),
            ("a", Clone, false),
            ("a", Update, true),
            ("a", Update, true),
            ("a", Update, false),
            ("b", Clone, true),
            // All five jobs run.
            ("b", Update, false),
            ("c", Update, true),
            ("c", Update, false),
            ("a", Publish, true),
            ("c", Publish, false),
        ] {
            let gets = gets_a_turn(&schedule, job(host, kind), &mut turns).await;
            assert_eq!(gets, expected, "{host} {kind:?}");
        }
        turns.clear();

        assert!(gets_a_turn(&schedule, job("a", Publish), &mut turns).await);
        assert_eq!(schedule.state.lock().running.jobs, 0);
    }

    #[tokio::test]
    async fn clones_of_many_hosts_leave_half_of_the_jobs_to_updates() {
        use JobKind::{Clone, Update};
        let schedule = schedule(8, 4);
        let mut turns = Vec::new();

        for (host, kind, expected) in [
            ("a", Clone, true),
            ("a", Clone, true),
            ("b", Clone, true),
            ("b", Clone, true),
            // A host without a running job gets one beyond the limit, but no more.
            ("c", Clone, true),
            ("c", Clone, false),
            ("a", Update, true),
            ("b", Update, true),
            ("c", Update, true),
            ("a", Update, false),
        ] {
            let gets = gets_a_turn(&schedule, job(host, kind), &mut turns).await;
            assert_eq!(gets, expected, "{host} {kind:?}");
        }
        turns.clear();
        assert_eq!(schedule.state.lock().running.clones, 0);
    }

    /// Takes turn after turn for one repository, and counts them.
    async fn insist(
        schedule: Arc<Schedule>,
        (urgency, got): (Urgency, Arc<AtomicUsize>),
        (all, enough): (Arc<AtomicUsize>, usize),
    ) {
        while all.load(Ordering::SeqCst) < enough {
            let turn = schedule.turn(job("a", JobKind::Update), urgency).await;
            all.fetch_add(1, Ordering::SeqCst);
            got.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
            drop(turn);
        }
    }

    #[tokio::test]
    async fn requests_starve_neither_periodic_jobs_nor_each_other() {
        let schedule = schedule(2, 2);
        let all = Arc::new(AtomicUsize::new(0));
        let mut counts = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        for number in 0..20 {
            let urgency = if number < 12 {
                Urgency::Requested
            } else {
                Urgency::Periodic
            };
            let got = Arc::new(AtomicUsize::new(0));
            counts.push((urgency, Arc::clone(&got)));
            let until = (Arc::clone(&all), 4000);
            running.spawn(insist(Arc::clone(&schedule), (urgency, got), until));
        }

        running.join_all().await;

        for (urgency, got) in counts {
            // Three of four turns go to 12 repositories, one of four to 8.
            let fair = match urgency {
                Urgency::Requested => 4000 * 3 / 4 / 12,
                Urgency::Periodic => 4000 / 4 / 8,
            };
            let got = got.load(Ordering::SeqCst);
            assert!(
                got.abs_diff(fair) <= fair / 20,
                "{urgency:?}: {got}, not {fair}"
            );
        }
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_takes_no_turn() {
        let schedule = schedule(1, 1);
        let first = schedule
            .turn(job("a", JobKind::Update), Urgency::Requested)
            .await;
        let mut turns = Vec::new();
        for _ in 0..3 {
            assert!(!gets_a_turn(&schedule, job("a", JobKind::Update), &mut turns).await);
        }

        drop(first);

        assert_eq!(schedule.state.lock().running.jobs, 0);
        assert!(gets_a_turn(&schedule, job("a", JobKind::Update), &mut turns).await);
    }
}
