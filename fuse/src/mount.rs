//! The lifetime of a mount: builds its parts, serves it, unmounts it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::adapter::Adapter;
use crate::cache::Cache;
use crate::control::{self, BindError, Server};
use crate::fetch::{DaemonToken, HttpSource, TokenError};
use crate::fs::Fs;
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
    /// The FUSE session failed, or unmounting failed.
    #[error("the FUSE session failed")]
    Session(#[source] io::Error),
}

/// A running mount.
#[derive(Debug)]
pub struct Mount {
    served: Mutex<Option<ServedSession>>,
    repositories: Arc<Repositories>,
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
        let traffic = Arc::new(Traffic::default());
        let token = open_token(&options)?;
        let source =
            HttpSource::new(&options, token, Arc::clone(&traffic)).map_err(MountError::Http)?;
        let backend = Arc::new(Backend::new(
            Arc::new(source),
            open_cache(&options).await?,
            traffic,
            options.read_timeout,
        ));
        let segments = Arc::new(Segments::new(backend));
        let eviction = Arc::clone(&segments).keep_within_limit();
        segments.backend().tasks.spawn(eviction);
        let repositories = Arc::new(Repositories::new(options.clone(), segments));
        let fs = Arc::new(Fs::new(Arc::clone(&repositories)));
        // Before the mount: a second mount at this place fails here, and nothing has to be undone.
        let control = bind(&options).await.map_err(|source| MountError::Control {
            path: control::socket_path(&options.mount_point),
            source,
        })?;
        let adapter = Adapter::new(fs, Handle::current(), &options);
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
        repositories
            .invalidator
            .set(Invalidator::new(served.notifier.clone()))
            .ok();
        repositories.start();
        control.serve(&repositories);
        info!(mount_point = %mount_point.display(), "Mounted at {}", mount_point.display());
        Ok(Self {
            served: Mutex::new(Some(served)),
            repositories,
            control,
        })
    }

    /// Waits until the mount ends: by `umount`, by a request on the control socket, or by
    /// [`Mount::unmount`]. Only the first call waits; a later one returns at once.
    pub async fn wait(&self) -> Result<(), MountError> {
        let served = self
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut served) = served else {
            return Ok(());
        };
        let outcome = tokio::select! {
            outcome = &mut served.ended => outcome.unwrap_or(Ok(())),
            () = self.control.stop_requested() => {
                // Before the unmount: pending reads fail now, and no longer keep the mount busy.
                self.repositories.segments.backend().ending.cancel();
                let outcome = served.unmount();
                // A busy mount is detached, and its session goes on while files are open. Reads of
                // open files fail when this process ends.
                tokio::time::timeout(ENDING_TIMEOUT, &mut served.ended).await.ok();
                outcome
            }
        };
        // Before the tasks end: the mount point is free, and the next mount there needs the socket.
        self.control.remove_socket();
        self.end_tasks().await;
        outcome.map_err(MountError::Session)
    }

    /// Starts to unmount, and makes [`Mount::wait`] return.
    pub fn unmount(&self) {
        self.control.request_stop();
    }

    async fn end_tasks(&self) {
        let backend = self.repositories.segments.backend();
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
