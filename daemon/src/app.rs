//! The daemon as a whole: starting, running, stopping.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use crate::http;
use crate::mirror::{Git, end_orphans};
use crate::publish::Publisher;
use crate::repository::{Registry, mirrors};
use crate::store::DiskStore;

/// How long answers that are under way may take to end after the daemon is told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for a daemon that is just ending; or for a process that is being started, which
/// holds all our files between fork and exec.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be used.
    #[error("the configuration can't be used")]
    Config(#[from] ConfigError),
    /// A directory or file below the data directory can't be made.
    #[error("can't prepare {path}")]
    Prepare {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another daemon works in the data directory.
    #[error("another daemon uses {data_dir}")]
    InUse {
        /// The directory.
        data_dir: PathBuf,
    },
    /// The client for HTTP upstreams can't be made.
    #[error("can't prepare requests to upstream")]
    HttpClient(#[source] reqwest::Error),
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon;

/// A daemon that runs, until [`Running::shutdown`] is cancelled; dropping this does not stop it.
#[derive(Debug)]
pub struct Running {
    /// Where it serves HTTP.
    pub address: SocketAddr,
    /// Cancelling this stops it.
    pub shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    /// Starts the daemon in the current tokio runtime, which must have several threads.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let prepare = |path: PathBuf| {
            move |source: std::io::Error| StartError::Prepare {
                path,
                source: source.into(),
            }
        };
        let lock = lock_data_dir(&config).await?;
        let git_config = write_git_config(&config).map_err(prepare(config.data_dir.clone()))?;
        let ended_processes = end_orphans(&git_config).await;
        if ended_processes > 0 {
            tracing::warn!(ended_processes, "Ended what an earlier daemon left running");
        }
        let tmp = tmp_directory(&config);
        sweep(&tmp).map_err(prepare(tmp.clone()))?;
        let mirrors = mirrors(&config);
        std::fs::create_dir_all(&mirrors).map_err(prepare(mirrors.clone()))?;
        let store_root = config.data_dir.join("store");
        let store = DiskStore::create(&store_root, &tmp).map_err(|source| StartError::Prepare {
            path: store_root,
            source: source.into(),
        })?;
        let listener = TcpListener::bind(config.listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let shutdown = CancellationToken::new();
        let stop_timeout = config.mirrors.stop_timeout;
        let kill = CancellationToken::new();
        let git = Git::new(git_config, kill.clone());
        let publisher = Publisher::new(git.clone(), store.clone(), Arc::clone(&config));
        let registry = Registry::new(config, git, publisher, shutdown.clone())
            .map_err(StartError::HttpClient)?;
        registry.open_existing().map_err(prepare(mirrors))?;
        let router = http::router(Arc::clone(&registry), store);
        let stop = shutdown.clone();
        let jobs = kill_late(stop.clone(), kill, stop_timeout);
        let serve = async move {
            let stopped = stop.clone();
            // The end of an answer must not wait until the client acknowledges what came before it:
            // that took 40 ms of each short range.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            let served = axum::serve(listener, service)
                .with_graceful_shutdown(async move { stopped.cancelled().await });
            let limit = async {
                stop.cancelled().await;
                tokio::time::sleep(DRAIN_LIMIT).await;
            };
            tokio::select! {
                served = served => if let Err(error) = served {
                    tracing::error!(%error, "Serving HTTP ended");
                },
                () = limit => tracing::warn!("Answers that were still under way were cut off"),
            }
            stop.cancel();
            registry.join().await;
        };
        let task = tokio::spawn(async move {
            tokio::pin!(serve);
            tokio::select! {
                () = &mut serve => {}
                () = jobs => serve.await,
            }
            drop(lock);
        });
        Ok(Running {
            address,
            shutdown,
            task,
        })
    }
}

impl Running {
    /// Waits until the daemon has stopped.
    pub async fn stopped(self) {
        // A panic has been reported by its hook already.
        self.task.await.ok();
    }
}

/// Gives the git commands that run some time to end after `stop`, then kills them.
async fn kill_late(stop: CancellationToken, kill: CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
    kill.cancel();
}

/// Where temporary files are: on the same filesystem as mirrors and store.
pub(crate) fn tmp_directory(config: &Config) -> PathBuf {
    config.data_dir.join("tmp")
}

/// Makes sure that no other daemon sweeps, fetches or publishes here, as long as the file is open.
async fn lock_data_dir(config: &Config) -> Result<File, StartError> {
    let path = config.data_dir.join("lock");
    let open = || {
        std::fs::create_dir_all(&config.data_dir)?;
        File::create(&path)
    };
    let lock = open().map_err(|source| StartError::Prepare {
        path: path.clone(),
        source: source.into(),
    })?;
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    while lock.try_lock().is_err() {
        if tokio::time::Instant::now() > deadline {
            let data_dir = config.data_dir.clone();
            return Err(StartError::InUse { data_dir });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(lock)
}

/// Removes what an earlier run of the daemon left.
fn sweep(tmp: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(tmp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(tmp)
}

/// Writes the file that stands for the user's git configuration: an upstream on this machine may
/// belong to anyone, and the operator's file may name credential helpers.
fn write_git_config(config: &Config) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(config.data_dir.join("gitconfig"))?;
    let mut text = "[safe]\n\tdirectory = *\n".to_owned();
    if let Some(file) = &config.git.config_file {
        let file = std::path::absolute(file)?
            .to_string_lossy()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        text.extend(["[include]\n\tpath = \"", &file, "\"\n"]);
    }
    let mut file = tempfile::NamedTempFile::new_in(&config.data_dir)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(&path)?;
    Ok(path)
}
