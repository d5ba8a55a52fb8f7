//! The mount's end of the control socket: accepts connections and answers requests.
//!
//! ```text
//! accept ─► admit (uid, limits) ─► one task: read a request ─► work ⇄ progress ─► last reply
//! ```
//!
//! A request ends in one of three ways: its work finishes, the client closes the connection, or the
//! mount ends. In the last two cases the work is dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::HEARTBEAT;
use super::clones::Clones;
use super::connections::{ConnectionPermit, Connections, Peer, admit};
use super::protocol::{
    ControlAnswer, ControlRequest, ProcessReport, Progress, Reply, SnapshotPart, StatusReport,
};
use super::socket::{ControlSocket, remove_dead_sockets};
use super::socket_directory::{self, SocketDirectory, SocketDirectoryError};
use crate::fetch::FetchError;
use crate::ino::Tree;
use crate::mount_table::DeviceNumber;
use crate::repository::{Repositories, Repository, kept_of};
use crate::segment::ReadError;

/// How often progress is sent, if there is any.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// At most this many bytes of a request: a repository's name and a path.
const MAX_REQUEST_LEN: u64 = 64 << 10;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long a client may take to read a line before the mount gives up on it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server waits after it failed to accept a connection. The process may have no file
/// descriptor free, and without a pause the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Why the control socket can't be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket's directory can't be trusted.
    #[error(transparent)]
    SocketDirectory(#[from] SocketDirectoryError),
    /// The socket can't be created.
    #[error("can't create the control socket")]
    Io(#[from] io::Error),
}

/// The mount's end of the control socket.
#[derive(Debug)]
pub(crate) struct Server {
    pub(super) socket: Arc<ControlSocket>,
    stop: CancellationToken,
    /// The signal that ends accepting connections.
    pub(super) paused: Mutex<CancellationToken>,
    connections: Arc<Connections>,
    pub(super) clones: Arc<Clones>,
    /// The connections to new processes that ask to take the mount over.
    successors: mpsc::Sender<UnixStream>,
    pub(super) next_successor: tokio::sync::Mutex<mpsc::Receiver<UnixStream>>,
}

/// Opens the directory for the control sockets of this user's mounts, and removes those of killed
/// mounts.
pub(crate) async fn open_socket_directory() -> Result<SocketDirectory, BindError> {
    let (directory, owner) = socket_directory::of_this_user();
    let directory = SocketDirectory::create(&directory, owner)?;
    remove_dead_sockets(&directory).await;
    Ok(directory)
}

impl Server {
    /// Listens for the mount of the filesystem with the number `device`.
    ///
    /// Without `allow_other`, only root and the user who mounts may connect.
    pub(crate) fn bind(
        directory: SocketDirectory,
        device: &DeviceNumber,
        allow_other: bool,
    ) -> Result<Self, BindError> {
        let socket = ControlSocket::bind(directory, device, allow_other)?;
        Ok(Self::new(socket))
    }

    pub(super) fn new(socket: ControlSocket) -> Self {
        let (successors, next_successor) = mpsc::channel(1);
        Self {
            socket: Arc::new(socket),
            stop: CancellationToken::new(),
            paused: Mutex::default(),
            connections: Arc::default(),
            clones: Arc::default(),
            successors,
            next_successor: tokio::sync::Mutex::new(next_successor),
        }
    }

    /// Answers requests until the mount ends, or until [`Server::pause`].
    pub(crate) fn serve(&self, repositories: &Arc<Repositories>) {
        let tasks = repositories.tasks().clone();
        let (socket, stop) = (Arc::clone(&self.socket), self.stop.clone());
        let repositories = Arc::clone(repositories);
        let (connections, clones) = (Arc::clone(&self.connections), Arc::clone(&self.clones));
        let (paused, successors) = (CancellationToken::new(), self.successors.clone());
        *self.paused.lock() = paused.clone();
        tasks.clone().spawn_until_end(async move {
            let mut has_failed = false;
            loop {
                let accepted = tokio::select! {
                    accepted = socket.listener.accept() => accepted,
                    () = paused.cancelled() => return,
                };
                let stream = match accepted {
                    Ok((stream, _)) => {
                        has_failed = false;
                        stream
                    }
                    Err(error) => {
                        // It fails again after each pause for as long as the reason lasts.
                        if !has_failed {
                            let socket = "the control socket";
                            warn!(%error, "Can't accept a connection on {socket}: {error}");
                        }
                        has_failed = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                // Before a task is spawned: connections beyond the limits hold neither a task nor a
                // file descriptor.
                let allow_other = repositories.options.allow_other;
                let Some((stream, peer, permit)) = admit(stream, &connections, allow_other) else {
                    continue;
                };
                let session = ControlConnection {
                    repositories: Arc::clone(&repositories),
                    clones: Arc::clone(&clones),
                    stop: stop.clone(),
                    successors: successors.clone(),
                    peer,
                    _permit: permit,
                };
                tasks.spawn_until_end(async move {
                    if let Err(error) = session.run(stream).await {
                        debug!(%error, "A control connection broke: {error}");
                    }
                });
            }
        });
    }

    /// Waits until a request or [`Server::request_stop`] asks the mount to end.
    pub(crate) async fn stop_requested(&self) {
        self.stop.cancelled().await;
    }

    /// Asks the mount to end.
    pub(crate) fn request_stop(&self) {
        self.stop.cancel();
    }
}

/// One accepted connection.
pub(super) struct ControlConnection {
    pub(super) repositories: Arc<Repositories>,
    clones: Arc<Clones>,
    stop: CancellationToken,
    pub(super) successors: mpsc::Sender<UnixStream>,
    peer: Peer,
    _permit: ConnectionPermit,
}

impl ControlConnection {
    /// Reads one request and sends its replies.
    async fn run(&self, stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        let mut line = String::new();
        let mut limited = (&mut input).take(MAX_REQUEST_LEN);
        // Both the length and the time of a request are limited: otherwise an idle or endless
        // client would keep its permit and memory for as long as the mount lives.
        timeout(REQUEST_TIMEOUT, limited.read_line(&mut line)).await??;
        let request: ControlRequest = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("invalid control request: {error}");
                return send(&mut output, &Reply::Failed { message }).await;
            }
        };
        if matches!(request, ControlRequest::Options | ControlRequest::Replace)
            && let Err(message) = self.check_successor(uid)
        {
            return send(&mut output, &Reply::Failed { message }).await;
        }
        if needs_privilege(&request) && self.peer != Peer::Owner {
            let message =
                "only root and the user who mounted may pin, unpin, forget or unmount".to_owned();
            return send(&mut output, &Reply::Failed { message }).await;
        }
        if request == ControlRequest::Replace {
            send(&mut output, &Reply::Done(ControlAnswer::Nothing)).await?;
            let stream = input.into_inner().reunite(output);
            // Fails if the mount is ending, or others are asking. Then the connection closes.
            self.successors
                .try_send(stream.map_err(io::Error::other)?)
                .ok();
            return Ok(());
        }
        let (progress, mut seen) = watch::channel(None);
        let work = self.answer(request.clone(), progress);
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
        let mut last_reply_at = Instant::now();
        let reply = loop {
            tokio::select! {
                outcome = &mut work => break match outcome {
                    Ok(answer) => Reply::Done(answer),
                    Err(message) => Reply::Failed { message },
                },
                // The client has gone. Returning drops `work`.
                () = closed(&mut input) => return Ok(()),
                _ = ticks.tick() => {
                    let news = seen.has_changed().unwrap_or(false);
                    if news || last_reply_at.elapsed() >= HEARTBEAT {
                        let progress = seen.borrow_and_update().clone();
                        let progress = progress.unwrap_or_else(|| step("waiting for the mount"));
                        send(&mut output, &Reply::Progress(progress)).await?;
                        last_reply_at = Instant::now();
                    }
                }
            }
        };
        send(&mut output, &reply).await?;
        if request == ControlRequest::Stop {
            // After the reply: once the mount ends, all connections are dropped.
            self.stop.cancel();
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: ControlRequest,
        progress: watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        match request {
            ControlRequest::Status => Ok(ControlAnswer::Status(Box::new(self.status().await?))),
            ControlRequest::Resolve { repo } => {
                Ok(self.resolved(&*self.resolve(&repo, &progress).await?))
            }
            ControlRequest::Prefetch { repo, part } => {
                let repository = self.resolve(&repo, &progress).await?;
                self.fetch(&repository, part, &progress).await
            }
            ControlRequest::PrefetchPaths {
                repo,
                paths,
                reader,
            } => self.fetch_paths(&repo, (&paths, reader), &progress).await,
            ControlRequest::Forget { repo, force } => self.forget(&repo, force, &progress).await,
            ControlRequest::Check { repo } => self.check(&repo, progress).await,
            ControlRequest::Await { repo, wanted } => {
                self.await_refs(&repo, &wanted, &progress).await
            }
            ControlRequest::Pin { repo } => {
                let repository = self.resolve(&repo, &progress).await?;
                let pinned = self.repositories.pin(&repository);
                pinned.map_err(|error| format!("can't pin {repo}: {}", chain(&error)))?;
                let answer = self.fetch(&repository, SnapshotPart::All, &progress).await;
                if !matches!(answer, Ok(ControlAnswer::Fetched { .. })) {
                    self.repositories.start_fetching_pin(&repository, None);
                }
                answer
            }
            ControlRequest::Unpin { repo } => match self.repositories.cache().unpin(&repo) {
                Ok(true) => Ok(ControlAnswer::Nothing),
                Ok(false) => Err(format!("{repo} is not pinned")),
                Err(error) => Err(format!("can't unpin {repo}: {error}")),
            },
            ControlRequest::Refresh { repo } => {
                let text = format!("the daemon fetches {repo} from upstream");
                let refreshing = self.repositories.source().refresh(&repo);
                let of_repo = (&repo, &progress);
                let refreshed = self.while_daemon_works(of_repo, &text, refreshing).await;
                if let Err(error) = refreshed {
                    // A first clone and publish may take longer than the timeout of this request.
                    // Then `resolve` below waits for them, as a plain lookup does.
                    let resolve_waits = matches!(error, FetchError::Unreachable { .. })
                        && !self.repositories.is_resolved(&repo);
                    if !resolve_waits {
                        return Err(chain(&error));
                    }
                }
                let repository = self.resolve(&repo, &progress).await?;
                let outcome = self.repositories.catch_up(&repository).await;
                outcome.map_err(|error| chain(&error))?;
                Ok(self.resolved(&repository))
            }
            ControlRequest::RegisterClone { repo, directory } => {
                if !self.repositories.is_resolved(&repo) {
                    return Err(format!(
                        "can't register the clone: this mount doesn't show {repo}"
                    ));
                }
                self.clones.register(self.peer, repo, directory)?;
                self.repositories.view_changed.notify_one();
                Ok(ControlAnswer::Nothing)
            }
            ControlRequest::UnregisterClone { directory } => {
                self.clones.unregister(self.peer, &directory);
                self.repositories.view_changed.notify_one();
                Ok(ControlAnswer::Nothing)
            }
            ControlRequest::Options => {
                let options = serde_json::to_value(&self.repositories.options);
                let options = options.map_err(|error| error.to_string())?;
                Ok(ControlAnswer::Options { options })
            }
            ControlRequest::BeforeSleep => {
                self.repositories.callers.release().await;
                Ok(ControlAnswer::Nothing)
            }
            // `run` has handled it.
            ControlRequest::Replace | ControlRequest::Stop => Ok(ControlAnswer::Nothing),
        }
    }

    /// Waits until `repo` can be read, and reports meanwhile what the daemon does.
    pub(super) async fn resolve(
        &self,
        repo: &RepoName,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<Arc<Repository>, String> {
        let is_new = !self.repositories.is_resolved(repo);
        // A person asks, who may just have mended the reason of an earlier failure.
        self.repositories.forget_failure(repo);
        let resolving = self.repositories.resolve(repo);
        let text = format!("looking up {repo}");
        let resolved = self.while_daemon_works((repo, progress), &text, resolving);
        let repository = resolved.await.map_err(|error| chain(&error))?;
        if is_new {
            self.repositories.look_up_again(repo).await;
        }
        Ok(repository)
    }

    /// Fetches a part of a repository's snapshot into the cache.
    async fn fetch(
        &self,
        repository: &Repository,
        part: SnapshotPart,
        progress: &watch::Sender<Option<Progress>>,
    ) -> Result<ControlAnswer, String> {
        let traffic = self.repositories.traffic();
        let before = traffic.report_of(&repository.name).fetched_bytes;
        let generation = repository.view().generation;
        let text = format!("fetching {} into the cache", repository.name);
        let on_progress = |done, total| send_progress(progress, &text, done, total);
        let outcome: Result<(), ReadError> = self
            .repositories
            .fetch_part(&generation, part, || true, on_progress)
            .await;
        match outcome {
            Ok(()) => {}
            // Nothing was fetched.
            Err(error @ ReadError::NoRoom { .. }) => return Err(chain(&error)),
            Err(error) => {
                let (kept_bytes, total_bytes) = kept_of(&generation, part);
                return Ok(ControlAnswer::Incomplete {
                    kept_bytes,
                    total_bytes,
                    reason: chain(&error),
                });
            }
        }
        let fetched_bytes = traffic
            .report_of(&repository.name)
            .fetched_bytes
            .saturating_sub(before);
        Ok(ControlAnswer::Fetched { fetched_bytes })
    }

    async fn status(&self) -> Result<StatusReport, String> {
        let cache = self.repositories.cache();
        let options = &self.repositories.options;
        let repositories = Arc::clone(&self.repositories);
        // Looks at the files of the cache.
        let report = tokio::task::spawn_blocking(move || repositories.report()).await;
        let mut repos = report.map_err(|error| error.to_string())?;
        for report in &mut repos {
            report.clones = self.clones.of(&report.repo, self.peer);
        }
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mount_point: options.mount_point.clone(),
            daemons: options.daemons.clone(),
            hosts: self.repositories.known_hosts(),
            cache_dir: options.cache_dir.clone(),
            cache_bytes: cache.used_bytes(),
            cache_max_bytes: cache.max_bytes(),
            cache_failure: cache
                .failures()
                .present()
                .map(|known| known.failure.report()),
            cache_short_at: cache.short_at(),
            traffic: self.repositories.traffic().report(),
            outage: self.repositories.reachability.outage(),
            repos,
            passthrough: Some(self.repositories.passthrough.report(options)),
            processes: self.processes(),
        })
    }

    /// Returns the processes that fetched something lately. Another user learns of none.
    fn processes(&self) -> Vec<ProcessReport> {
        if self.peer == Peer::Owner {
            self.repositories.traffic().processes.report()
        } else {
            Vec::new()
        }
    }

    pub(super) fn resolved(&self, repository: &Repository) -> ControlAnswer {
        let generation = repository.view().generation;
        let objects_directory = Tree::Inner.root(&repository.name);
        ControlAnswer::Resolved {
            snapshot: generation.snapshot,
            upstream_url: generation.upstream_url.clone(),
            default_branch: generation.default_branch.clone(),
            objects_directory: self
                .repositories
                .options
                .mount_point
                .join(objects_directory),
            notice: generation.notice.clone(),
        }
    }
}

pub(super) fn send_progress(
    progress: &watch::Sender<Option<Progress>>,
    text: &str,
    done_bytes: u64,
    total_bytes: u64,
) {
    // Fails if the client has gone: then nobody needs the report.
    progress
        .send(Some(Progress {
            done_bytes,
            total_bytes,
            ..step(text)
        }))
        .ok();
}

/// Returns a progress report without a number of bytes.
fn step(text: &str) -> Progress {
    Progress {
        step: text.to_owned(),
        done_bytes: 0,
        total_bytes: 0,
    }
}

/// Returns whether only root and the user who mounted may make a request.
fn needs_privilege(request: &ControlRequest) -> bool {
    // Unmounting, eviction policy and failing calls affect other users. The rest has the effects of
    // reading files, which `allow_other` permits anyway.
    match request {
        ControlRequest::Stop
        | ControlRequest::BeforeSleep
        | ControlRequest::Options
        | ControlRequest::Replace
        | ControlRequest::Pin { .. }
        | ControlRequest::Unpin { .. }
        | ControlRequest::Forget { .. } => true,
        ControlRequest::Status
        | ControlRequest::Resolve { .. }
        | ControlRequest::Prefetch { .. }
        | ControlRequest::PrefetchPaths { .. }
        | ControlRequest::Check { .. }
        | ControlRequest::Refresh { .. }
        | ControlRequest::Await { .. }
        | ControlRequest::RegisterClone { .. }
        | ControlRequest::UnregisterClone { .. } => false,
    }
}

async fn send(output: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let line = reply.to_line()?;
    timeout(REPLY_TIMEOUT, output.write_all(line.as_bytes())).await?
}

/// Waits until the client closes the connection. Ignores all bytes that it sends before.
async fn closed(input: &mut BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 64];
    while matches!(input.read(&mut ignored).await, Ok(count) if count > 0) {}
}
