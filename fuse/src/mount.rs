//! A mount: everything put together, from its start to its end.

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

/// How long the end of a mount waits for its tasks: they only have to notice.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a control socket that is in use is tried again.
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Why a mount can't be made, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is no directory that can be used.
    #[error("can't use the mount point {path}")]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The cache can't be opened.
    #[error("can't open the cache at {path}")]
    Cache {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No HTTP client can be made.
    #[error("can't set up HTTP")]
    Http(#[source] reqwest::Error),
    /// There is no token to show.
    #[error("the token in {path} can't be used")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TokenError,
    },
    /// The kernel refuses.
    #[error("can't mount at {path}")]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The control socket can't be made.
    #[error("can't listen at {path}")]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: BindError,
    },
    /// The session failed.
    #[error("the mount failed")]
    Session(#[source] io::Error),
}

/// A mount that is being served.
#[derive(Debug)]
pub struct Mount {
    served: Mutex<Option<ServedSession>>,
    repositories: Arc<Repositories>,
    control: Server,
}

impl Mount {
    /// Mounts, and starts to serve. The mount works when this returns.
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
        let control = bind(&options).await.map_err(|source| MountError::Control {
            path: control::socket_path(&options.mount_point),
            source,
        })?;
        let adapter = Adapter::new(fs, Handle::current(), &options);
        let mount_point = options.mount_point.clone();
        // Waits for the kernel's first request.
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
        control.serve(&repositories);
        info!(mount_point = %mount_point.display(), "Mounted at {}", mount_point.display());
        Ok(Self {
            served: Mutex::new(Some(served)),
            repositories,
            control,
        })
    }

    /// Waits until it is unmounted, from outside or by request, or until [`Mount::unmount`].
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
                // First: reads that are pending fail now, and don't hold the mount.
                self.repositories.segments.backend().ending.cancel();
                let outcome = served.unmount();
                // A mount that is busy has left the tree; its open files fail when we end.
                tokio::time::timeout(ENDING_TIMEOUT, &mut served.ended).await.ok();
                outcome
            }
        };
        // At once: who mounts here next has a socket of its own.
        self.control.remove_socket();
        self.end_tasks().await;
        outcome.map_err(MountError::Session)
    }

    /// Unmounts: makes [`Mount::wait`] return.
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
            warn!("some tasks did not end in time");
        }
    }
}

/// The token that the daemons are shown.
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
    // Looks at every file of the cache.
    let opened = tokio::task::spawn_blocking(move || Cache::open(&path, max_bytes)).await;
    opened
        .map_err(io::Error::other)
        .and_then(|cache| cache)
        .map_err(|source| MountError::Cache {
            path: options.cache_dir.clone(),
            source,
        })
}

/// Binds the control socket; a mount at the same place that is just ending gets a moment for it.
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
