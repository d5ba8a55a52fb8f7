//! The task of one repository: it alone touches the mirror.
//!
//! Requests that come while a run is under way wait for the next one, so each gets the result of
//! an update that began after it asked. No work hangs off the life of a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, info, warn};

use super::Snapshots;
use super::damage::Examined;
use super::followed::{Outcome, Repository};
use super::other_publish::Waited;
use super::registry::Registry;
use super::schedule::{Job, JobKind, Turn, Urgency};
use super::{Freshness, RepositoryError, Status};
use crate::error_chain::chain;
use crate::metrics::{JobClass, JobEnd, RunningJob, WaitingJob};
use crate::mirror::is_mirror;
use crate::publish::{Attempt, PackLayout, PublishOptions, PublishOutcome};
use crate::traces::Cause;

/// How often a publish that another daemon has overtaken is begun again at once.
const MAX_OVERTAKEN: usize = 4;

/// What the task of a repository is asked for; the answer comes with the first run that begins after
/// it.
#[derive(Debug)]
pub(super) enum Request {
    /// An update, and the publish of what it brings.
    Publish(oneshot::Sender<Outcome>),
    /// An update, and a publish with all packs laid out anew.
    LayOutAnew(oneshot::Sender<Outcome>),
    /// The end: of the mirror, and of the snapshots, too, if so.
    Forget(Snapshots, oneshot::Sender<Result<(), RepositoryError>>),
    /// An update.
    Update(oneshot::Sender<Result<(), RepositoryError>>),
}

impl Request {
    /// Whether somebody asks for work to be done now, not only for what is fresh.
    fn is_wish(&self) -> bool {
        match self {
            Self::Publish(_) | Self::LayOutAnew(_) => true,
            Self::Update(_) | Self::Forget(..) => false,
        }
    }

    /// Whether somebody asks for the end.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Forget(..))
    }

    /// Tells who asked, who may have gone away, how the run ended.
    pub(super) fn answer(self, outcome: &Outcome) {
        match self {
            Self::Publish(sender) | Self::LayOutAnew(sender) => {
                drop(sender.send(outcome.clone()));
            }
            Self::Update(sender) | Self::Forget(_, sender) => {
                drop(sender.send(outcome.clone().map(drop)));
            }
        }
    }
}

pub(super) struct Worker {
    pub(super) registry: Arc<Registry>,
    pub(super) repository: Arc<Repository>,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Whether a killed git may have left locks.
    pub(super) may_have_locks: bool,
    /// When the mirror was last set aside because it was damaged, since the daemon's start.
    pub(super) set_aside_at: Option<std::time::Instant>,
    /// The last look for damage in the mirror, since the daemon's start.
    pub(super) examined: Option<Examined>,
    /// When packs were last rolled up, since the daemon's start.
    pub(super) repacked_at: Option<std::time::Instant>,
    /// When the mirror was last used, as far as that is written down.
    pub(super) written_use: u64,
}

impl Worker {
    pub(super) fn new(
        registry: Arc<Registry>,
        repository: Arc<Repository>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            registry,
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
        let stop = self.registry.stop.clone();
        let mut changes = self.registry.config.changes();
        loop {
            match self.registry.check(&self.repository.name) {
                Ok(upstream) => self.repository.set_upstream(upstream),
                Err(error) => return self.end_removed(&error),
            }
            let next_run = Instant::from_std(self.repository.status().next_run);
            let mut waiting = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return self.write_use(Duration::ZERO),
                Some(request) = self.requests.recv() => waiting.push(request),
                Ok(()) = changes.changed() => {
                    let interval = self.registry.config.now().fetch_interval;
                    self.repository.change_status(|status| status.run_within(interval));
                    continue;
                }
                () = sleep_until(next_run) => {}
            }
            if self.is_forgotten(&mut waiting).await
                || (waiting.is_empty() && self.has_gone().await)
            {
                return;
            }
            if waiting.is_empty() && self.is_unknown_and_unused() {
                self.registry.forget(&self.repository.name);
                return;
            }
            if let Some(error) = self.known_failure(&waiting) {
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
            if self.is_forgotten(&mut waiting).await {
                return;
            }
            // Who still waits after a run that didn't publish asked for what was to be forgotten.
            let outcome = ended.transpose().unwrap_or(Err(RepositoryError::Forgotten));
            for request in waiting {
                request.answer(&outcome);
            }
            if is_mirror(&self.repository.mirror) {
                self.maintain().await;
                self.write_use_now_and_then();
            }
        }
    }

    /// Whether upstream has no such repository and nobody has asked for it since it said so: names
    /// that are only guessed must not fill the memory.
    fn is_unknown_and_unused(&self) -> bool {
        self.repository.status().failure.is_some_and(|failure| {
            failure.error.is_not_found() && self.repository.used_at() <= failure.last_try
        }) && !is_mirror(&self.repository.mirror)
    }

    /// Why the last update failed, if it is too early to try again just because somebody asks for
    /// what is fresh; who wishes a publish gets a try.
    fn known_failure(&self, waiting: &[Request]) -> Option<RepositoryError> {
        if waiting.is_empty() || waiting.iter().any(Request::is_wish) {
            return None;
        }
        let failure = self.repository.status().failure?;
        failure.holds_mirror_back().then_some(failure.error)
    }

    /// Updates and publishes, again if another daemon publishes meanwhile, or the mirror is damaged.
    async fn run_once(
        &mut self,
        waiting: &mut Vec<Request>,
    ) -> Result<Option<PublishOutcome>, RepositoryError> {
        for tries in 0..MAX_OVERTAKEN {
            match self.update_and_publish(waiting, tries > 0).await {
                Err(error) if error.is_overtaken() => {
                    let repo = &self.repository.name;
                    info!(%repo, error = chain(&error), "Looking at {repo} again");
                }
                Err(error) if self.has_mended_mirror(&error).await => {}
                ended => return ended,
            }
        }
        self.update_and_publish(waiting, true).await
    }

    /// Takes over all that wait, then updates and publishes; `None` if it is too early to try again
    /// a publish that failed, or the repository is to be forgotten.
    async fn update_and_publish(
        &mut self,
        waiting: &mut Vec<Request>,
        takes_over: bool,
    ) -> Result<Option<PublishOutcome>, RepositoryError> {
        let is_first = !is_mirror(&self.repository.mirror);
        let cause = self.update_for(waiting).await?;
        if !waiting.iter().any(Request::is_wish) {
            let failure = self.repository.status().failure;
            if failure.is_some_and(|failure| failure.holds_publish_back()) {
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
                        Waited::Done => {}
                        Waited::Forgotten => return Ok(None),
                    }
                }
            }
        }
    }

    /// Takes over all that wait, updates, and answers those who wait for nothing else.
    pub(super) async fn update_for(
        &mut self,
        waiting: &mut Vec<Request>,
    ) -> Result<Cause, RepositoryError> {
        let stop = self.registry.stop.clone();
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
        while let Ok(request) = self.requests.try_recv() {
            waiting.push(request);
        }
        if waiting.iter().any(Request::is_wish) {
            self.repository.change_status(Status::forget_tries);
        }
        let began = std::time::Instant::now();
        let updated = self.update().instrument(job.span()).await;
        job.end(match &updated {
            Ok(()) => JobEnd::Done,
            Err(error) => JobEnd::Failed(error.failure_kind()),
        });
        let found = updated.clone().map(|()| Freshness::Fresh);
        self.repository.checks.note(began, found);
        updated?;
        drop(turn);
        let is_update = |request: &mut Request| matches!(request, Request::Update(_));
        for request in waiting.extract_if(.., is_update) {
            if let Request::Update(sender) = request {
                drop(sender.send(Ok(())));
            }
        }
        Ok(cause)
    }

    /// Publishes what there is, unless another daemon is at it.
    async fn publish_for(
        &mut self,
        waiting: &[Request],
        takes_over: bool,
        cause: &Cause,
    ) -> Result<Attempt<PublishOutcome>, RepositoryError> {
        let job = self.wait(JobClass::Publish);
        let _turn = self.unless_stopping(self.publish_turn(waiting)).await?;
        let job = self.start(job, cause);
        let is_anew = |request: &Request| matches!(request, Request::LayOutAnew(_));
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
            let is_wish = waiting.iter().any(Request::is_wish);
            self.registry
                .lfs_after_publish(&self.repository, (published, is_wish), cause.clone());
        }
        outcome
    }

    /// Waits for more to arrive.
    async fn debounce(&self) {
        sleep(self.registry.config.now().publish_delay).await;
    }

    /// Notes that a job waits for its turn.
    pub(super) fn wait(&self, class: JobClass) -> WaitingJob {
        self.repository
            .change_status(|status| status.begin(class, false));
        WaitingJob::new(self.registry.metrics(), class)
    }

    /// Notes that the job's turn has come.
    pub(super) fn start(&self, job: WaitingJob, cause: &Cause) -> RunningJob {
        let class = job.class();
        self.repository
            .change_status(|status| status.begin(class, true));
        job.start(&self.repository.name, cause)
    }

    /// A turn to talk to upstream; who asks while a periodic update waits for it makes it urgent.
    async fn network_turn(&mut self, waiting: &mut Vec<Request>) -> Turn {
        let kind = if is_mirror(&self.repository.mirror) {
            JobKind::Update
        } else {
            JobKind::Clone
        };
        let schedule = Arc::clone(&self.registry.schedule);
        if waiting.is_empty() {
            tokio::select! {
                turn = schedule.turn(self.job(kind), Urgency::Periodic) => return turn,
                Some(request) = self.requests.recv() => waiting.push(request),
            }
        }
        schedule.turn(self.job(kind), Urgency::Asked).await
    }

    /// A turn to publish.
    pub(super) async fn publish_turn(&self, waiting: &[Request]) -> Turn {
        let urgency = if waiting.is_empty() {
            Urgency::Periodic
        } else {
            Urgency::Asked
        };
        let schedule = &self.registry.schedule;
        schedule.turn(self.job(JobKind::Publish), urgency).await
    }

    fn job(&self, kind: JobKind) -> Job {
        let host = self.repository.name.host().to_owned();
        Job { host, kind }
    }

    /// Waits, unless the daemon stops: then no further job is to begin.
    pub(super) async fn unless_stopping<T>(
        &self,
        wait: impl Future<Output = T>,
    ) -> Result<T, RepositoryError> {
        tokio::select! {
            biased;
            () = self.registry.stop.cancelled() => Err(RepositoryError::Stopping),
            waited = wait => Ok(waited),
        }
    }

    /// The host is not configured any more. Its mirrors stay on disk, and what is published in the store.
    fn end_removed(mut self, error: &RepositoryError) {
        let repo = &self.repository.name;
        info!(%repo, "Stopped following {repo}: {error}");
        self.registry.forget(repo);
        while let Ok(request) = self.requests.try_recv() {
            request.answer(&Err(error.clone()));
        }
    }

    fn note(&self, ended: &Result<Option<PublishOutcome>, RepositoryError>) {
        let repo = &self.repository.name;
        if let Err(error) = ended {
            warn!(%repo, error = chain(error), "Bringing {repo} up to date failed");
        }
        let config = self.registry.config.now();
        let interval = config.fetch_interval;
        self.repository.change_status(|status| match ended {
            Ok(Some(published)) => status.succeed(*published, interval),
            Ok(None) => status.succeed_in_part(interval),
            Err(error) => status.fail(error.clone(), interval, &config.mirrors),
        });
    }
}
