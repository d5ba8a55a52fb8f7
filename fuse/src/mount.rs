//! The lifetime of a mount: builds its parts, serves it, unmounts it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_format::api::code;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::cache::Cache;
use crate::control::{self, BindError, Client, ClientError, ConnectError, Server, SocketDirectory};
use crate::dead_mount::clear_dead_mount;
use crate::fetch::{FetchError, HttpSource};
use crate::fs::Fs;
use crate::hand_over;
use crate::holder::Holder;
use crate::invalidate::Invalidator;
use crate::mount_table::mount_at;
use crate::options::MountOptions;
use crate::recovery::{self, Keeper, Remains};
use crate::repository::{RepoError, Repositories};
use crate::saved_state::{HandOverError, SessionState};
use crate::segment::{Backend, Segments};
use crate::session::Adapter;
use crate::session::{self, ServedSession};
use crate::token::{DaemonToken, TokenError};
use crate::traffic::{Purpose, Traffic};

/// How long the end of a mount waits for the session and for its tasks. All of them have been told
/// to stop, so this should take only a moment.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long [`Mount::outage`] waits for a daemon.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a new mount waits before it looks again whether its mount point is free.
const FREE_INTERVAL: Duration = Duration::from_millis(50);

/// Why a mount can't be started, or why it failed later.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point doesn't exist or can't be looked up.
    #[error("can't use the mount point {path}")]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The cache can't be opened.
    #[error("can't open the cache at {path}")]
    Cache {
        /// The directory of the cache.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The HTTP client can't be created.
    #[error("can't set up the HTTP client")]
    Http(#[source] reqwest::Error),
    /// The daemons' token can't be read from its file.
    #[error("can't use the token in {path}")]
    Token {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: TokenError,
    },
    /// The kernel or `fusermount3` refuses to mount.
    #[error("can't mount at {path}")]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// Another cachewfs mount is there, and its process is alive.
    #[error("another cachewfs mount is at {path}")]
    InUse {
        /// The mount point.
        path: PathBuf,
    },
    /// The control socket can't be created.
    #[error("can't open the control socket of the mount")]
    Control(#[from] BindError),
    /// The connection to the kernel was aborted while the mount was in use.
    #[error("the kernel or an administrator aborted the FUSE connection of the mount at {path}")]
    Aborted {
        /// The mount point.
        path: PathBuf,
    },
    /// The running mount can't be reached to take it over.
    #[error("can't ask the running mount at {path}")]
    NotRunning {
        /// The mount point.
        path: PathBuf,
        /// The reason.
        source: ConnectError,
    },
    /// The running mount refuses to be taken over.
    #[error("the running mount at {path} can't be taken over")]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// The reason.
        source: ClientError,
    },
    /// The hand-over failed. The mount goes on as before.
    #[error("the mount at {path} was not taken over, and goes on as before")]
    HandOver {
        /// The mount point.
        path: PathBuf,
        /// The reason.
        source: HandOverError,
    },
    /// The mount of a killed process can't be served again.
    #[error("the mount at {path} can't be served again after its process was killed")]
    Recovery {
        /// The mount point.
        path: PathBuf,
        /// The reason.
        source: HandOverError,
    },
    /// The FUSE session failed, or unmounting failed.
    #[error("the FUSE session failed")]
    Session(#[source] io::Error),
}

/// Returns why the answer of a daemon is of no use, or `None` if the mount can work with it.
fn useless(error: RepoError) -> Option<String> {
    let RepoError::Hosts(error) = error else {
        return None;
    };
    match &*error {
        FetchError::Status { .. } | FetchError::NotJson { .. } => {
            let answer = chain(&*error);
            Some(format!("no cachewfs daemon answers at this URL: {answer}"))
        }
        FetchError::Refused { code, .. } if code == code::UNAUTHENTICATED => {
            Some(format!("the daemon wants its token: {}", chain(&*error)))
        }
        // The policy may hide the list and show repositories.
        _ => None,
    }
}

/// A running mount.
#[derive(Debug)]
pub struct Mount {
    served: Mutex<Option<ServedSession>>,
    fs: Arc<Fs>,
    control: Server,
}

impl Mount {
    /// Mounts, and starts to serve requests. The mount is usable when this returns.
    pub async fn start(mut options: MountOptions) -> Result<Self, MountError> {
        let requested = options.mount_point.clone();
        options.mount_point =
            requested
                .canonicalize()
                .map_err(|source| MountError::MountPoint {
                    path: requested,
                    source,
                })?;
        let fs = build(&options).await?;
        // Before the mount: then nothing has to be undone if the directory can't be used.
        let sockets = control::open_socket_directory().await?;
        wait_until_free(&options.mount_point).await?;
        let starting = lock_start(&sockets).await?;
        // Another mount may have started here until this one had the lock.
        wait_until_free(&options.mount_point).await?;
        let adapter = Adapter::new(Arc::clone(&fs), Handle::current(), &options);
        let (mount_point, allow_other) = (options.mount_point.clone(), options.allow_other);
        // Blocks until the kernel has sent its first request.
        let started = tokio::task::spawn_blocking(move || session::start(adapter, &options)).await;
        let served = started
            .map_err(io::Error::other)
            .and_then(|served| served)
            .map_err(|source| MountError::Mount {
                path: mount_point.clone(),
                source,
            })?;
        let control = Server::bind(sockets, &served.device, allow_other).inspect_err(|_| {
            served.unmount().ok();
        })?;
        drop(starting);
        info!(mount_point = %mount_point.display(), "Mounted at {}", mount_point.display());
        Ok(Self::serve(fs, control, served))
    }

    /// Takes a running mount over from the process that serves it, which then ends. Its users
    /// notice nothing. With an error, the other process goes on.
    ///
    /// `options` are those of the running mount, or others for this process. The mount point, the
    /// users, the owner and passthrough belong to the mount and can't change.
    pub async fn take_over(options: MountOptions) -> Result<Self, MountError> {
        let path = options.mount_point.clone();
        // First what takes long, and then the request: meanwhile the other process keeps nothing
        // for this one.
        let fs = build(&options).await?;
        let connected = Client::connect(&path).await;
        let client = connected.map_err(|source| MountError::NotRunning {
            path: path.clone(),
            source,
        })?;
        let stream = client.replace().await;
        let stream = stream.map_err(|source| MountError::Refused {
            path: path.clone(),
            source,
        })?;
        let failed = |source| MountError::HandOver {
            path: path.clone(),
            source,
        };
        let prepared = hand_over::prepare(stream, &fs).await;
        let prepared = prepared.map_err(failed)?;
        let mut taken = hand_over::take(prepared, &fs).await.map_err(failed)?;
        let broken = |error: io::Error| failed(error.into());
        let SessionState {
            negotiated,
            device,
            socket_directory,
        } = taken.session.clone();
        let listener = taken.listener.try_clone().map_err(broken)?;
        let clones = std::mem::take(&mut taken.clones);
        let control = Server::resume(&socket_directory, &device, listener, clones)?;
        let adapter = Adapter::new(Arc::clone(&fs), Handle::current(), &options);
        let session = (&taken.connection, negotiated);
        let session = session::resume(adapter, &options, session).map_err(broken)?;
        tokio::task::block_in_place(|| taken.wait_for_go()).map_err(failed)?;
        let served = session.serve(device).map_err(broken)?;
        let point = path.display();
        info!(mount_point = %point, "Took over the mount at {point}");
        let mount = Self::serve(fs, control, served);
        mount.follow(&taken).await;
        Ok(mount)
    }

    /// Serves a mount again whose process was killed. `remains` is all that it left.
    pub async fn recover(remains: Remains) -> Result<Self, MountError> {
        let path = remains.options.mount_point.clone();
        let failed = |source| MountError::Recovery {
            path: path.clone(),
            source,
        };
        let broken = |error: io::Error| failed(error.into());
        let options = &remains.options;
        let fs = build(options).await?;
        let recovered = recovery::recover(&remains, &fs).await.map_err(failed)?;
        let SessionState {
            negotiated, device, ..
        } = recovered.session;
        let sockets = control::open_socket_directory().await?;
        let control = Server::bind(sockets, &device, options.allow_other)?;
        control.clones().restore(recovered.clones);
        let adapter = Adapter::new(Arc::clone(&fs), Handle::current(), options);
        let connection = (&remains.connection, negotiated);
        let prepared = session::resume(adapter, options, connection).map_err(broken)?;
        // Before this process reads: the kernel would send its requests again, too.
        session::ask_again(&remains.connection).map_err(broken)?;
        let served = prepared.serve(device).map_err(broken)?;
        let point = path.display();
        info!(mount_point = %point, "Serving the mount at {point} again");
        let mount = Self::serve(fs, control, served);
        for repository in &recovered.repositories {
            mount.fs.repositories().follow_adopted(repository);
        }
        Ok(mount)
    }

    /// Lets `holder` keep what another process needs to serve the mount if this one is killed.
    /// Does nothing if the kernel is older than Linux 6.9: requests would be lost.
    pub fn protect(&self, holder: Holder) {
        let served = self.served.lock();
        let Some(served) = &*served else { return };
        let negotiated = served.negotiated.filter(|agreed| agreed.can_ask_again());
        let (Some(negotiated), Ok(connection)) = (negotiated, served.connection.try_clone()) else {
            return;
        };
        let keeper = Keeper {
            fs: Arc::clone(&self.fs),
            clones: self.control.clones(),
            connection,
            session: SessionState {
                negotiated,
                device: served.device.clone(),
                socket_directory: self.control.socket_directory().to_owned(),
            },
        };
        self.fs.holder.set(holder).ok();
        self.fs.repositories().tasks().spawn(keeper.run());
    }

    fn serve(fs: Arc<Fs>, control: Server, served: ServedSession) -> Self {
        let repositories = fs.repositories();
        repositories
            .invalidator
            .set(Invalidator::new(served.notifier.clone()))
            .ok();
        repositories.start();
        control.serve(repositories);
        Self {
            served: Mutex::new(Some(served)),
            fs,
            control,
        }
    }

    /// Starts the background tasks of repositories that were taken over, and tells the kernel what
    /// this program shows otherwise than the other did.
    async fn follow(&self, taken: &hand_over::Taken) {
        let repositories = self.fs.repositories();
        for repository in &taken.repositories {
            repositories.follow_adopted(repository);
        }
        let invalidator = repositories.invalidator.get().cloned();
        let stale = taken.stale.clone();
        let told = tokio::task::spawn_blocking(move || {
            for (repo, tree, path) in &stale {
                if let Some(invalidator) = &invalidator {
                    invalidator.drop_stale(repo, *tree, path);
                }
            }
        });
        told.await.ok();
    }

    /// Returns why no daemon gives a usable answer, or `None` if one does. Waits at most a second.
    pub async fn outage(&self) -> Option<String> {
        let repositories = Arc::clone(self.fs.repositories());
        let asking = Arc::clone(&repositories);
        // A task goes on after the timeout. Lookups wait for its answer, and would have to begin
        // again: with a silent daemon before one that answers, they would end too late.
        let asked = repositories
            .tasks()
            .spawn_until_end(async move { asking.newest_hosts(Purpose::Background).await.err() });
        let answered = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, asked).await;
        let outage = repositories.reachability.outage();
        match (outage, answered) {
            (Some(outage), _) => Some(outage.reason),
            (None, Err(_)) => {
                let seconds = FIRST_ANSWER_TIMEOUT.as_secs();
                Some(format!("no daemon has answered within {seconds} s"))
            }
            (None, Ok(answer)) => answer.ok().flatten().flatten().and_then(useless),
        }
    }

    /// Waits until the mount ends: by `umount`, by a request on the control socket, by
    /// [`Mount::unmount`], or because another process has taken it over. Only the first call waits;
    /// a later one returns at once.
    pub async fn wait(&self) -> Result<(), MountError> {
        let served = self.served.lock().take();
        let Some(mut served) = served else {
            return Ok(());
        };
        let tasks = self.fs.repositories().tasks();
        let (prepared, mut next_prepared) = tokio::sync::mpsc::channel(1);
        let outcome = loop {
            tokio::select! {
                outcome = &mut served.ended => break match outcome.unwrap_or(Ok(())) {
                    Ok(()) => self.remove_aborted(&served),
                    Err(error) => {
                        self.remove_aborted(&served).ok();
                        Err(MountError::Session(error))
                    }
                },
                () = self.control.stop_requested() => {
                    // Before the unmount: pending reads fail now, and no longer keep the mount
                    // busy.
                    tasks.end();
                    let outcome = served.unmount();
                    // A busy mount is detached, and its session goes on while files are open. Reads
                    // of open files fail when this process ends.
                    tokio::time::timeout(ENDING_TIMEOUT, &mut served.ended).await.ok();
                    break outcome.map_err(MountError::Session);
                }
                stream = self.control.successor() => {
                    // Preparing takes the new process a while, and this one serves on.
                    let (fs, prepared) = (Arc::clone(&self.fs), prepared.clone());
                    tasks.spawn(async move {
                        match hand_over::accept(stream, &fs).await {
                            // Fails if another one is prepared, or the mount ends.
                            Ok(successor) => drop(prepared.try_send(successor)),
                            Err(error) => warn!(
                                error = &error as &dyn std::error::Error,
                                "A process that asked to take the mount over was not prepared"
                            ),
                        }
                    });
                }
                Some(successor) = next_prepared.recv() => {
                    match hand_over::give(successor, &self.fs, &served, &self.control).await {
                        Ok(_given) => {
                            self.end_replaced(&served).await;
                            return Ok(());
                        }
                        Err(error) => warn!(
                            error = &error as &dyn std::error::Error,
                            "The mount was not handed over: this process goes on"
                        ),
                    }
                }
            }
        };
        self.end_tasks().await;
        outcome
    }

    /// Ends a process whose mount another process serves now. Leaves mount and socket alone.
    async fn end_replaced(&self, served: &ServedSession) {
        info!("Another process serves the mount now: this one ends");
        let gate = Arc::clone(&served.gate);
        // The kernel got no answer to these reads yet, and only this process can answer them.
        let patience = self.fs.repositories().options.read_timeout + ENDING_TIMEOUT;
        let answered = tokio::task::spawn_blocking(move || gate.wait_until_answered(patience));
        if !answered.await.unwrap_or(false) {
            warn!("Some reads were not answered before this process ended: they fail");
        }
        self.end_tasks().await;
    }

    /// Starts to unmount, and makes [`Mount::wait`] return.
    pub fn unmount(&self) {
        self.control.request_stop();
    }

    /// Unmounts if the session ended although the mount is still in the mount table.
    ///
    /// The kernel ends a session when it is unmounted, but also when its connection is aborted: by
    /// `umount -f`, or by a write to `abort` in `/sys/fs/fuse/connections`. Such a mount would fail
    /// every access until somebody unmounts it.
    fn remove_aborted(&self, served: &ServedSession) -> Result<(), MountError> {
        if !served.is_mounted().map_err(MountError::Session)? {
            return Ok(());
        }
        let path = self.fs.repositories().options.mount_point.clone();
        let shown = path.display();
        warn!(
            mount_point = %shown,
            "The FUSE connection of the mount at {shown} was aborted: unmounting it"
        );
        // `umount -f` may have been faster.
        let outcome = served.unmount();
        if served.is_mounted().map_err(MountError::Session)? {
            outcome.map_err(MountError::Session)?;
        }
        Err(MountError::Aborted { path })
    }

    async fn end_tasks(&self) {
        let ended = self.fs.repositories().tasks().end_all();
        if tokio::time::timeout(ENDING_TIMEOUT, ended).await.is_err() {
            let seconds = ENDING_TIMEOUT.as_secs();
            warn!("Some background tasks of the mount did not end within {seconds} s");
        }
    }
}

/// Builds the parts of a mount, from the cache up to the file system.
async fn build(options: &MountOptions) -> Result<Arc<Fs>, MountError> {
    let segments = Arc::new(open_segments(options).await?);
    let eviction = Arc::clone(&segments).keep_within_limit();
    segments.backend().tasks.spawn(eviction);
    let repositories = Arc::new(Repositories::new(options.clone(), segments));
    Ok(Arc::new(Fs::new(repositories)))
}

/// Opens the cache, and sets up requests to the daemons.
pub(crate) async fn open_segments(options: &MountOptions) -> Result<Segments, MountError> {
    let traffic = Arc::new(Traffic::default());
    let token = open_token(options)?;
    let source = HttpSource::new(options, token, Arc::clone(&traffic)).map_err(MountError::Http)?;
    let backend = Arc::new(Backend::new(
        Arc::new(source),
        open_cache(options).await?,
        traffic,
        options.read_timeout,
    ));
    Ok(Segments::new(backend))
}

/// Returns the token for the daemons, or `None` if the options name none.
fn open_token(options: &MountOptions) -> Result<Option<DaemonToken>, MountError> {
    if let Some(token) = &options.secret_token {
        return Ok(Some(token.into()));
    }
    let open = |path: &PathBuf| {
        DaemonToken::open(path).map_err(|source| MountError::Token {
            path: path.clone(),
            source,
        })
    };
    options.token_file.as_ref().map(open).transpose()
}

pub(crate) async fn open_cache(options: &MountOptions) -> Result<Cache, MountError> {
    let (path, max_bytes) = (options.cache_dir.clone(), options.cache_max_bytes);
    // Blocks while it looks at every file of the cache.
    let opened = tokio::task::spawn_blocking(move || Cache::open(&path, max_bytes)).await;
    opened
        .map_err(io::Error::other)
        .and_then(|cache| cache)
        .map_err(|source| MountError::Cache {
            path: options.cache_dir.clone(),
            source,
        })
}

/// Waits until no other mount of this user is just starting. Dropping the file lets the next start.
///
/// Otherwise two mounts that start at one mount point could both find it free.
async fn lock_start(sockets: &SocketDirectory) -> Result<File, MountError> {
    let file = sockets.lock_file().map_err(BindError::Io)?;
    let lock = move || file.lock().map(|()| file);
    let locked = tokio::task::spawn_blocking(lock).await;
    let locked = locked.map_err(io::Error::other).and_then(|locked| locked);
    Ok(locked.map_err(BindError::Io)?)
}

/// Waits until no cachewfs mount is at `mount_point`. Removes a dead one, and waits for one that is
/// just ending.
async fn wait_until_free(mount_point: &Path) -> Result<(), MountError> {
    let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
    let path = mount_point.to_owned();
    let is_free = move || {
        clear_dead_mount(&path)?;
        Ok(mount_at(&path)?.is_none())
    };
    loop {
        // On another thread, with a timeout: a mount whose process is stopped answers nothing.
        let looked = tokio::task::spawn_blocking(is_free.clone());
        let is_free = match tokio::time::timeout_at(deadline, looked).await {
            Ok(outcome) => outcome.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => Ok(false),
        };
        match is_free {
            Ok(true) => return Ok(()),
            Ok(false) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(FREE_INTERVAL).await;
            }
            Ok(false) => {
                let path = mount_point.to_owned();
                return Err(MountError::InUse { path });
            }
            Err(source) => {
                let path = mount_point.to_owned();
                return Err(MountError::Mount { path, source });
            }
        }
    }
}
