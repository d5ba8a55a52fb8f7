//! The task of one repository. Only this task writes to the mirror.
//!
//! ```text
//! request or timer ─► wait for a turn ─► take all requests ─► update ─► answer "update" requests
//!                  ─► debounce ─► wait for a turn ─► publish ─► answer all requests ─► maintain
//! ```
//!
//! Requests that arrive during a run wait for the next one. So each gets the result of an update
//! that began after the request. A client that disconnects stops no work.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, info, warn};

use super::context::Context;
use super::examination::LastExamination;
use super::handle::Repository;
use super::lfs::LfsRuns;
use super::repositories::Repositories;
use super::request::TaskRequest;
use super::schedule::{JobKind, ScheduledJob, Turn, Urgency};
use super::{Freshness, RepositoryError, Status};
use crate::base::chain;
use crate::metrics::{JobClass, JobEnd, RunningJob, WaitingJob};
use crate::mirror::is_mirror;
use crate::publish::{Attempt, PackLayout, PublishOptions, PublishOutcome};
use crate::traces::Cause;

/// At most this many times a publish is retried at once because another daemon published first.
const MAX_OVERTAKEN: usize = 4;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// The other daemon has published or gone, so the task must look at the store again.
    Done,
    /// The repository is to be forgotten.
    Forgotten,
}

/// The task of a repository.
pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) repositories: Arc<Repositories>,
    lfs: Arc<LfsRuns>,
    pub(super) repository: Arc<Repository>,
    pub(super) requests: mpsc::Receiver<TaskRequest>,
    /// Whether a killed git may have left locks.
    pub(super) may_have_locks: bool,
    /// When the mirror was last set aside because it was damaged, since the daemon's start.
    pub(super) set_aside_at: Option<std::time::Instant>,
    /// The last examination for damage, since the daemon's start.
    pub(super) examined: Option<LastExamination>,
    /// When the packs were last combined, since the daemon's start.
    pub(super) repacked_at: Option<std::time::Instant>,
    /// The time of the last use that is written on disk.
    pub(super) written_use: u64,
}

impl Worker {
    /// Creates the task of `repository`, which is in the list `repositories`.
    pub(super) fn new(
        context: Arc<Context>,
        repositories: Arc<Repositories>,
        lfs: Arc<LfsRuns>,
        repository: Arc<Repository>,
        requests: mpsc::Receiver<TaskRequest>,
    ) -> Self {
        Self {
            context,
            repositories,
            lfs,
            repository,
            requests,
            may_have_locks: true,
            set_aside_at: None,
            examined: None,
            repacked_at: None,
            written_use: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        let mut changes = self.context.config.changes();
        loop {
            // Each round: the configuration may have been reloaded since the last one.
            match self.context.check(&self.repository.name) {
                Ok(upstream) => self.repository.set_upstream(upstream),
                Err(error) => return self.end_removed(&error),
            }
            let next_run = Instant::from_std(self.repository.status().next_run);
            let mut waiting = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return self.write_use(Duration::ZERO),
                Some(request) = self.requests.recv() => waiting.push(request),
                Ok(()) = changes.changed() => {
                    let interval = self.context.config.now().fetch_interval;
                    self.repository.change_status(|status| status.run_within(interval));
                    continue;
                }
                () = sleep_until(next_run) => {}
            }
            if self.forget_if_requested(&mut waiting).await
                || (waiting.is_empty() && self.remove_if_unused().await)
            {
                return;
            }
            if waiting.is_empty() && self.is_unknown_and_unused() {
                self.repositories.forget(&self.repository.name);
                return;
            }
            if let Some(error) = self.failure_in_backoff(&waiting) {
                for request in waiting {
                    request.answer(&Err(error.clone()));
                }
                continue;
            }
            let ended = self.run_once(&mut waiting).await;
            if stop.is_cancelled() {
                return self.write_use(Duration::ZERO);
            }
            self.note(&ended);
            if self.forget_if_requested(&mut waiting).await {
                return;
            }
            // A run ends without a publish for two reasons. If publishing is in backoff, all
            // requests for an update were answered in the run. Else the repository is to be
            // forgotten, but that failed.
            let outcome = ended.transpose().unwrap_or(Err(RepositoryError::Forgotten));
            for request in waiting {
                request.answer(&outcome);
            }
            // After the answers: no client waits for maintenance.
            if is_mirror(&self.repository.mirror) {
                self.maintain().await;
                self.write_use_now_and_then();
            }
        }
    }

    /// Returns whether upstream has no such repository and no client has requested it since
    /// upstream said so. Such tasks end, so that guessed names don't fill the memory.
    fn is_unknown_and_unused(&self) -> bool {
        self.repository.status().failure.is_some_and(|failure| {
            failure.error.is_not_found() && self.repository.used_at() <= failure.last_try
        }) && !is_mirror(&self.repository.mirror)
    }

    /// Returns the last failure of updating, if it is in backoff and all waiting requests only want
    /// fresh data. Returns `None` if there is an explicit request: it gets a try.
    fn failure_in_backoff(&self, waiting: &[TaskRequest]) -> Option<RepositoryError> {
        if waiting.is_empty() || waiting.iter().any(TaskRequest::is_explicit) {
            return None;
        }
        let failure = self.repository.status().failure?;
        failure.blocks_update().then_some(failure.error)
    }

    /// Updates and publishes. Tries again if another daemon published first, or if a damaged mirror
    /// was mended.
    async fn run_once(
        &mut self,
        waiting: &mut Vec<TaskRequest>,
    ) -> Result<Option<PublishOutcome>, RepositoryError> {
        for tries in 0..MAX_OVERTAKEN {
            match self.update_and_publish(waiting, tries > 0).await {
                Err(error) if error.is_overtaken() => {
                    let repo = &self.repository.name;
                    info!(
                        %repo,
                        error = chain(&error),
                        "Another daemon published {repo} first; updating and publishing it again"
                    );
                }
                Err(error) if self.mend_mirror(&error).await => {}
                ended => return ended,
            }
        }
        self.update_and_publish(waiting, true).await
    }

    /// Takes all waiting requests, updates and publishes. Returns `None` if publishing is in
    /// backoff, or if the repository is to be forgotten.
    async fn update_and_publish(
        &mut self,
        waiting: &mut Vec<TaskRequest>,
        takes_over: bool,
    ) -> Result<Option<PublishOutcome>, RepositoryError> {
        let is_first = !is_mirror(&self.repository.mirror);
        let cause = self.update_for(waiting).await?;
        if !waiting.iter().any(TaskRequest::is_explicit) {
            let failure = self.repository.status().failure;
            if failure.is_some_and(|failure| failure.blocks_publish()) {
                return Ok(None);
            }
            if !is_first {
                self.unless_stopping(self.debounce()).await?;
            }
        }
        loop {
            match self.publish_for(waiting, takes_over, &cause).await? {
                Attempt::Done(published) => return Ok(Some(published)),
                Attempt::HeldBy(holder) => {
                    match self.while_published_elsewhere(holder, waiting).await? {
                        WaitOutcome::Done => {}
                        WaitOutcome::Forgotten => return Ok(None),
                    }
                }
            }
        }
    }

    /// Takes all waiting requests, updates the mirror, and answers requests for an update.
    pub(super) async fn update_for(
        &mut self,
        waiting: &mut Vec<TaskRequest>,
    ) -> Result<Cause, RepositoryError> {
        let stop = self.context.stop.clone();
        let job = self.wait(if is_mirror(&self.repository.mirror) {
            JobClass::Update
        } else {
            JobClass::Clone
        });
        let turn = tokio::select! {
            () = stop.cancelled() => return Err(RepositoryError::Stopping),
            turn = self.network_turn(waiting) => turn,
        };
        let cause = self.repository.cause.take();
        let job = self.start(job, &cause);
        // Only now, with the turn in hand: every request that came while the task waited for its
        // turn shares this update.
        while let Ok(request) = self.requests.try_recv() {
            waiting.push(request);
        }
        if waiting.iter().any(TaskRequest::is_explicit) {
            self.repository.change_status(Status::forget_tries);
        }
        // Before the first byte is requested from upstream: freshness counts from here.
        let began = std::time::Instant::now();
        let updated = self.update().instrument(job.span()).await;
        job.end(match &updated {
            Ok(()) => JobEnd::Done,
            Err(error) => JobEnd::Failed(error.failure_kind()),
        });
        let found = updated.clone().map(|()| Freshness::Fresh);
        self.repository.checks.note(began, found);
        updated?;
        // The network turn ends here. Publishing has a limit of its own and doesn't use the
        // upstream.
        drop(turn);
        let is_update = |request: &mut TaskRequest| matches!(request, TaskRequest::Update(_));
        for request in waiting.extract_if(.., is_update) {
            if let TaskRequest::Update(sender) = request {
                drop(sender.send(Ok(())));
            }
        }
        Ok(cause)
    }

    /// Publishes the mirror, unless another daemon publishes it now.
    async fn publish_for(
        &mut self,
        waiting: &[TaskRequest],
        takes_over: bool,
        cause: &Cause,
    ) -> Result<Attempt<PublishOutcome>, RepositoryError> {
        let job = self.wait(JobClass::Publish);
        let _turn = self.unless_stopping(self.publish_turn(waiting)).await?;
        let job = self.start(job, cause);
        let is_anew = |request: &TaskRequest| matches!(request, TaskRequest::LayOutAnew(_));
        let layout = if waiting.iter().any(is_anew) {
            PackLayout::Full
        } else {
            PackLayout::Incremental
        };
        let order = PublishOptions { layout, takes_over };
        let outcome = self.publish(order).instrument(job.span()).await;
        job.end(match &outcome {
            Ok(Attempt::Done(published)) if published.moved => JobEnd::Done,
            Ok(_) => JobEnd::Unchanged,
            Err(error) if error.is_overtaken() => JobEnd::Unchanged,
            Err(error) => JobEnd::Failed(error.failure_kind()),
        });
        if let Ok(Attempt::Done(published)) = outcome {
            let is_explicit = waiting.iter().any(TaskRequest::is_explicit);
            let published = (published, is_explicit);
            self.lfs
                .after_publish(&self.repository, published, cause.clone());
        }
        outcome
    }

    /// Waits for further pushes, so that a burst of pushes becomes one snapshot.
    async fn debounce(&self) {
        sleep(self.context.config.now().publish.delay).await;
    }

    /// Notes that the task waits for a turn for a job.
    pub(super) fn wait(&self, class: JobClass) -> WaitingJob {
        self.repository
            .change_status(|status| status.begin(class, false));
        WaitingJob::new(Arc::clone(&self.context.metrics), class)
    }

    /// Notes that the job's turn has come.
    pub(super) fn start(&self, job: WaitingJob, cause: &Cause) -> RunningJob {
        let class = job.class();
        self.repository
            .change_status(|status| status.begin(class, true));
        job.start(&self.repository.name, cause)
    }

    /// Waits for a turn to talk to upstream. If a request arrives while a periodic update waits,
    /// the update becomes urgent.
    async fn network_turn(&mut self, waiting: &mut Vec<TaskRequest>) -> Turn {
        let kind = if is_mirror(&self.repository.mirror) {
            JobKind::Update
        } else {
            JobKind::Clone
        };
        let schedule = Arc::clone(&self.context.schedule);
        if waiting.is_empty() {
            tokio::select! {
                turn = schedule.turn(self.job(kind), Urgency::Periodic) => return turn,
                Some(request) = self.requests.recv() => waiting.push(request),
            }
        }
        schedule.turn(self.job(kind), Urgency::Requested).await
    }

    /// Waits for a turn to publish.
    pub(super) async fn publish_turn(&self, waiting: &[TaskRequest]) -> Turn {
        let urgency = if waiting.is_empty() {
            Urgency::Periodic
        } else {
            Urgency::Requested
        };
        let schedule = &self.context.schedule;
        schedule.turn(self.job(JobKind::Publish), urgency).await
    }

    fn job(&self, kind: JobKind) -> ScheduledJob {
        let host = self.repository.name.host().to_owned();
        ScheduledJob { host, kind }
    }

    /// Waits for `wait`. Fails if the daemon is stopping, so that no further job begins.
    pub(super) async fn unless_stopping<T>(
        &self,
        wait: impl Future<Output = T>,
    ) -> Result<T, RepositoryError> {
        tokio::select! {
            biased;
            () = self.context.stop.cancelled() => Err(RepositoryError::Stopping),
            waited = wait => Ok(waited),
        }
    }

    /// Ends the task because the host is no longer configured. The mirror stays on disk, and the
    /// snapshots in the store.
    fn end_removed(mut self, error: &RepositoryError) {
        let repo = &self.repository.name;
        info!(%repo, "Stopped mirroring {repo}: {error}");
        self.repositories.forget(repo);
        while let Ok(request) = self.requests.try_recv() {
            request.answer(&Err(error.clone()));
        }
    }

    fn note(&self, ended: &Result<Option<PublishOutcome>, RepositoryError>) {
        let repo = &self.repository.name;
        if let Err(error) = ended {
            warn!(%repo, error = chain(error), "Updating or publishing {repo} failed");
        }
        let config = self.context.config.now();
        let interval = config.fetch_interval;
        self.repository.change_status(|status| match ended {
            Ok(Some(published)) => status.succeed(*published, interval),
            Ok(None) => status.succeed_in_part(interval),
            Err(error) => status.fail(error.clone(), interval, &config.mirrors),
        });
    }
}
