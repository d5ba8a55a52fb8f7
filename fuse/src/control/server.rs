//! The mount's end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::protocol::{Answer, Part, Progress, Reply, Request, StatusReport};
use crate::repository::{Repositories, Repository};
use crate::segment::ReadError;

/// How often progress is told.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// The longest request, in bytes: a repository's name and a path.
const MAX_REQUEST_LEN: u64 = 64 << 10;

/// The mount's end of the control socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    listener: Arc<UnixListener>,
    stop: CancellationToken,
}

impl Server {
    /// Listens at `path`. A socket that a killed mount left there is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mode = if rustix::process::geteuid().is_root() {
            0o755
        } else {
            0o700
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(directory)?;
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let message = "another mount at the same place is still being served";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        fs::remove_file(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let listener = Arc::new(UnixListener::bind(path)?);
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            stop: CancellationToken::new(),
        })
    }

    /// Answers requests until the mount ends.
    pub(crate) fn serve(&self, repositories: &Arc<Repositories>) {
        let backend = Arc::clone(repositories.segments.backend());
        let (listener, stop) = (Arc::clone(&self.listener), self.stop.clone());
        let repositories = Arc::clone(repositories);
        let tasks = backend.tasks.clone();
        tasks.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = backend.ending.cancelled() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                let session = Session {
                    repositories: Arc::clone(&repositories),
                    stop: stop.clone(),
                };
                let ending = backend.ending.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        outcome = session.run(stream) => {
                            if let Err(error) = outcome {
                                debug!(%error, "a control connection broke");
                            }
                        }
                        () = ending.cancelled() => {}
                    }
                });
            }
        });
    }

    /// Waits until somebody wants the mount to end.
    pub(crate) async fn stop_requested(&self) {
        self.stop.cancelled().await;
    }

    /// Makes the mount end.
    pub(crate) fn request_stop(&self) {
        self.stop.cancel();
    }

    /// Removes the socket.
    pub(crate) fn remove_socket(&self) {
        fs::remove_file(&self.path).ok();
    }
}

/// One connection.
struct Session {
    repositories: Arc<Repositories>,
    stop: CancellationToken,
}

impl Session {
    async fn run(&self, stream: UnixStream) -> io::Result<()> {
        let is_privileged = is_privileged(&stream);
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        let mut line = String::new();
        (&mut input)
            .take(MAX_REQUEST_LEN)
            .read_line(&mut line)
            .await?;
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("not a request: {error}");
                return send(&mut output, &Reply::Failed { message }).await;
            }
        };
        if needs_privilege(&request) && !is_privileged {
            let message = "only root and the user who mounted may do that".to_owned();
            return send(&mut output, &Reply::Failed { message }).await;
        }
        let (progress, mut seen) = watch::channel(None);
        let work = self.answer(request.clone(), progress);
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
        let reply = loop {
            tokio::select! {
                outcome = &mut work => break match outcome {
                    Ok(answer) => Reply::Done(answer),
                    Err(message) => Reply::Failed { message },
                },
                // Whoever asked is gone: so is the reason to go on.
                () = closed(&mut input) => return Ok(()),
                _ = ticks.tick() => {
                    let news = seen.has_changed().unwrap_or(false);
                    let progress = seen.borrow_and_update().clone();
                    if news && let Some(progress) = progress {
                        send(&mut output, &Reply::Progress(progress)).await?;
                    }
                }
            }
        };
        send(&mut output, &reply).await?;
        if request == Request::Stop {
            self.stop.cancel();
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: Request,
        progress: watch::Sender<Option<Progress>>,
    ) -> Result<Answer, String> {
        match request {
            Request::Status => Ok(Answer::Status(self.status())),
            Request::Resolve { repo } => Ok(resolved(&*self.resolve(&repo, &progress).await?)),
            Request::Prefetch { repo, part } => {
                let repository = self.resolve(&repo, &progress).await?;
                self.fetch(&repository, part, &progress).await
            }
            Request::Pin { repo } => {
                let repository = self.resolve(&repo, &progress).await?;
                let pinned = self.repositories.pin(&repository);
                pinned.map_err(|error| chain(&error))?;
                self.fetch(&repository, Part::All, &progress).await
            }
            Request::Unpin { repo } => {
                let cache = &self.repositories.segments.backend().cache;
                cache.unpin(&repo).map_err(|error| error.to_string())?;
                Ok(Answer::Nothing)
            }
            Request::Refresh { repo } => {
                tell(&progress, "asking upstream", 0, 0);
                let source = &self.repositories.segments.backend().source;
                source.refresh(&repo).await.map_err(|error| chain(&error))?;
                // Nothing may have been published when it was last looked up.
                self.repositories.forget_failure(&repo);
                let repository = self.resolve(&repo, &progress).await?;
                let outcome = self.repositories.catch_up(&repository).await;
                outcome.map_err(|error| error.chain())?;
                Ok(resolved(&repository))
            }
            Request::RegisterClone { repo, directory } => {
                self.repositories.register_clone(repo, directory);
                Ok(Answer::Nothing)
            }
            Request::Stop => Ok(Answer::Nothing),
        }
    }

    async fn resolve(
        &self,
        repo: &RepoName,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<Arc<Repository>, String> {
        let work = self.repositories.resolve(repo);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome.map_err(|error| error.chain()),
                () = tokio::time::sleep(PROGRESS_PERIOD) => {
                    let failure = self.repositories.failure(repo);
                    let step = failure.unwrap_or_else(|| format!("looking up {repo}"));
                    tell(progress, &step, 0, 0);
                }
            }
        }
    }

    async fn fetch(
        &self,
        repository: &Repository,
        part: Part,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<Answer, String> {
        let traffic = &self.repositories.segments.backend().traffic;
        let before = traffic.report_of(&repository.name).fetched_bytes;
        let generation = repository.view().generation;
        let told = |done, total| tell(progress, "fetching", done, total);
        let outcome: Result<(), ReadError> = self
            .repositories
            .fetch_part(&generation, part, || true, told)
            .await;
        outcome.map_err(|error| chain(&error))?;
        let fetched_bytes = traffic
            .report_of(&repository.name)
            .fetched_bytes
            .saturating_sub(before);
        Ok(Answer::Fetched { fetched_bytes })
    }

    fn status(&self) -> StatusReport {
        let backend = self.repositories.segments.backend();
        let options = &self.repositories.options;
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mount_point: options.mount_point.clone(),
            daemons: options.daemons.clone(),
            cache_dir: options.cache_dir.clone(),
            cache_bytes: backend.cache.used_bytes(),
            cache_max_bytes: backend.cache.max_bytes(),
            traffic: backend.traffic.report(),
            repos: self.repositories.report(),
        }
    }
}

fn resolved(repository: &Repository) -> Answer {
    let generation = repository.view().generation;
    Answer::Resolved {
        snapshot: generation.snapshot,
        upstream_url: generation.upstream_url.clone(),
        default_branch: generation.default_branch.clone(),
        objects_directory: repository.objects_directory.clone(),
        notice: generation.notice.clone(),
    }
}

fn tell(progress: &watch::Sender<Option<Progress>>, step: &str, done_bytes: u64, total_bytes: u64) {
    // Nobody listens any more when the client is gone.
    progress
        .send(Some(Progress {
            step: step.to_owned(),
            done_bytes,
            total_bytes,
        }))
        .ok();
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether the client is root or runs as the user of this process.
fn is_privileged(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// Whether a request takes something away from other users.
fn needs_privilege(request: &Request) -> bool {
    match request {
        Request::Stop | Request::Pin { .. } | Request::Unpin { .. } => true,
        Request::Status
        | Request::Resolve { .. }
        | Request::Prefetch { .. }
        | Request::Refresh { .. }
        | Request::RegisterClone { .. } => false,
    }
}

async fn send(output: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    output.write_all(line.as_bytes()).await
}

/// Waits until the client closes the connection; what it sends before that is ignored.
async fn closed(input: &mut BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 64];
    while matches!(input.read(&mut ignored).await, Ok(count) if count > 0) {}
}
