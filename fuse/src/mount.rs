//! The lifetime of a mount: builds its parts, serves it, unmounts it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::adapter::Adapter;
use crate::cache::Cache;
use crate::control::{self, BindError, Client, ClientError, ConnectError, Server};
use crate::fetch::{DaemonToken, HttpSource, TokenError};
use crate::fs::Fs;
use crate::hand_over::{self, HandOverError};
use crate::invalidate::Invalidator;
use crate::options::MountOptions;
use crate::repository::Repositories;
use crate::segment::{Backend, Segments};
use crate::session::{self, ServedSession};
use crate::traffic::Traffic;

/// How long the end of a mount waits for the session and for its tasks. All of them have been told
/// to stop, so this should take only a moment.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long [`bind`] waits before it tries a control socket in use again.
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(50);

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
    /// The control socket can't be created.
    #[error("can't open the control socket {path}")]
    Control {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: BindError,
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
    /// The FUSE session failed, or unmounting failed.
    #[error("the FUSE session failed")]
    Session(#[source] io::Error),
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
        // Before the mount: a second mount at this place fails here, and nothing has to be undone.
        let control = bind(&options).await.map_err(|source| MountError::Control {
            path: control::socket_path(&options.mount_point),
            source,
        })?;
        let adapter = Adapter::new(Arc::clone(&fs), Handle::current(), &options);
        let mount_point = options.mount_point.clone();
        // Blocks until the kernel has sent its first request.
        let started = tokio::task::spawn_blocking(move || session::start(adapter, &options)).await;
        let served = started
            .map_err(io::Error::other)
            .and_then(|served| served)
            .map_err(|source| MountError::Mount {
                path: mount_point.clone(),
                source,
            })?;
        info!(mount_point = %mount_point.display(), "Mounted at {}", mount_point.display());
        Ok(Self::serve(fs, control, served))
    }

    /// Takes a running mount over from the process that serves it, which then ends. Its users
    /// notice nothing. With an error, the other process goes on.
    ///
    /// `options` are those of the running mount, or others for this process. The mount point, the
    /// users and passthrough belong to the mount and can't change.
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
        let listener = taken.listener.try_clone().map_err(broken)?;
        let clones = std::mem::take(&mut taken.clones);
        let control = Server::resume(&path, listener, clones);
        let control = control.map_err(|source| MountError::Control {
            path: control::socket_path(&path),
            source,
        })?;
        let adapter = Adapter::new(Arc::clone(&fs), Handle::current(), &options);
        let session = (&taken.device, taken.negotiated);
        let session = session::resume(adapter, &options, session).map_err(broken)?;
        tokio::task::block_in_place(|| taken.wait_for_go()).map_err(failed)?;
        let served = session.serve().map_err(broken)?;
        let point = path.display();
        info!(mount_point = %point, "Took over the mount at {point}");
        let mount = Self::serve(fs, control, served);
        mount.follow(&taken).await;
        Ok(mount)
    }

    fn serve(fs: Arc<Fs>, control: Server, served: ServedSession) -> Self {
        let repositories = fs.repositories();
        repositories
            .invalidator
            .set(Invalidator::new(served.notifier.clone()))
            .ok();
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

    /// Waits until the mount ends: by `umount`, by a request on the control socket, by
    /// [`Mount::unmount`], or because another process has taken it over. Only the first call waits;
    /// a later one returns at once.
    pub async fn wait(&self) -> Result<(), MountError> {
        let served = self
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut served) = served else {
            return Ok(());
        };
        let backend = self.fs.repositories().segments.backend();
        let (prepared, mut next_prepared) = tokio::sync::mpsc::channel(1);
        let outcome = loop {
            tokio::select! {
                outcome = &mut served.ended => break outcome.unwrap_or(Ok(())),
                () = self.control.stop_requested() => {
                    // Before the unmount: pending reads fail now, and no longer keep the mount
                    // busy.
                    backend.ending.cancel();
                    let outcome = served.unmount();
                    // A busy mount is detached, and its session goes on while files are open. Reads
                    // of open files fail when this process ends.
                    tokio::time::timeout(ENDING_TIMEOUT, &mut served.ended).await.ok();
                    break outcome;
                }
                stream = self.control.successor() => {
                    // Preparing takes the new process a while, and this one serves on.
                    let (fs, prepared) = (Arc::clone(&self.fs), prepared.clone());
                    backend.tasks.spawn(async move {
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
        // Before the tasks end: the mount point is free, and the next mount there needs the socket.
        self.control.remove_socket();
        self.end_tasks().await;
        outcome.map_err(MountError::Session)
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

    async fn end_tasks(&self) {
        let backend = self.fs.repositories().segments.backend();
        backend.ending.cancel();
        backend.tasks.close();
        if tokio::time::timeout(ENDING_TIMEOUT, backend.tasks.wait())
            .await
            .is_err()
        {
            let seconds = ENDING_TIMEOUT.as_secs();
            warn!("Some background tasks of the mount did not end within {seconds} s");
        }
    }
}

/// Builds the parts of a mount, from the cache up to the file system.
async fn build(options: &MountOptions) -> Result<Arc<Fs>, MountError> {
    let traffic = Arc::new(Traffic::default());
    let token = open_token(options)?;
    let source = HttpSource::new(options, token, Arc::clone(&traffic)).map_err(MountError::Http)?;
    let backend = Arc::new(Backend::new(
        Arc::new(source),
        open_cache(options).await?,
        traffic,
        options.read_timeout,
    ));
    let segments = Arc::new(Segments::new(backend));
    let eviction = Arc::clone(&segments).keep_within_limit();
    segments.backend().tasks.spawn(eviction);
    let repositories = Arc::new(Repositories::new(options.clone(), segments));
    Ok(Arc::new(Fs::new(repositories)))
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

async fn open_cache(options: &MountOptions) -> Result<Cache, MountError> {
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

/// Binds the control socket. If a mount at this place is just ending, waits until it has removed
/// its socket.
async fn bind(options: &MountOptions) -> Result<Server, BindError> {
    let deadline = tokio::time::Instant::now() + ENDING_TIMEOUT;
    loop {
        match Server::bind(&options.mount_point, options.allow_other) {
            Err(BindError::InUse) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(BIND_RETRY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}
