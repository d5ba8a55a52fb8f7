//! The daemon as a whole: starting, running, stopping.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cachewfs_format::RepoName;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{Access, AuthError, NewToken};
use crate::collection::{CollectionReport, collect_on_demand};
use crate::config::{Config, ConfigError, LiveConfig};
use crate::http;
use crate::listener::{self, Listener, Tls, TlsError};
use crate::mirror::{
    CredentialError, Credentials, Git, GitVersionError, check_version, end_orphans,
};
use crate::open_store::{StoreTasks, check_store, open_store};
use crate::private::create_private;
use crate::publish::Publisher;
use crate::readiness::Lifecycle;
use crate::repository::{Registry, mirrors};

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
    /// Another daemon works in a directory that is for one alone.
    #[error("another daemon uses {directory}")]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// What `[auth]` names can't be used.
    #[error("who may do what is not clear")]
    Auth(#[from] AuthError),
    /// What `[tls]` names can't be used.
    #[error("can't serve HTTPS")]
    Tls(#[from] TlsError),
    /// What `[upstream_auth]` names can't be used.
    #[error("there are no credentials for upstream")]
    Credentials(#[from] CredentialError),
    /// The installed git can't be used.
    #[error("the daemon can't start without git")]
    Git(#[from] GitVersionError),
    /// The client for HTTP upstreams can't be made.
    #[error("can't prepare requests to upstream")]
    HttpClient(#[source] reqwest::Error),
    /// The store can't be used.
    #[error("the store can't be used: {place}")]
    Store {
        /// Directory or bucket.
        place: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What would stop a start here and now, and perhaps not where the daemon will run.
#[derive(Debug, thiserror::Error)]
pub enum CheckWarning {
    /// Credentials for upstream.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// What the store needs.
    #[error(transparent)]
    Store(#[from] StartError),
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
    registry: Arc<Registry>,
    task: JoinHandle<()>,
}

/// Changes the configuration of a daemon that runs.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Registry>);

impl Daemon {
    /// Whether what the configuration says and names can be used: values, certificates, tokens, policy, the
    /// directory of the store. Credentials may be only where the daemon will run (`LoadCredential=`), and
    /// as who it will: what is wrong with them, and with the permissions, here is given.
    pub fn check(config: &Config) -> Result<Vec<CheckWarning>, StartError> {
        config.check()?;
        config.tls.as_ref().map(Tls::open).transpose()?;
        Access::open(&config.auth, None)?;
        let mut warnings = check_store(config)?;
        match Credentials::open_all(&config.upstream_auth, &config.upstreams) {
            Ok(_) => {}
            Err(error) if error.is_of_configuration() => return Err(error.into()),
            Err(error) => warnings.push(error.into()),
        }
        Ok(warnings)
    }

    /// Deletes from the store what no snapshot needs any more: of `repos`, or of all repositories if there are
    /// none. Daemons may run meanwhile. Tells `each` what was done of one after the other, or only
    /// would be done, if `is_dry_run`.
    pub async fn collect(
        config: &Config,
        repos: Vec<RepoName>,
        is_dry_run: bool,
        each: impl FnMut(CollectionReport),
    ) -> Result<(), StartError> {
        config.check()?;
        collect_on_demand(config, (repos, is_dry_run), each).await
    }

    /// Starts the daemon in the current tokio runtime, which must have several threads. It serves
    /// before it has looked for mirrors on disk, so that probes are answered; it has when this returns.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        Self::start_for(config, None).await
    }

    /// As [`Daemon::start`], but only requests that show `token` are answered, and be it that the daemon lives:
    /// all users of a machine reach its loopback addresses, and so do web pages in their browsers.
    pub async fn start_for_one(config: Config, token: &NewToken) -> Result<Running, StartError> {
        Self::start_for(config, Some(token)).await
    }

    async fn start_for(config: Config, only_for: Option<&NewToken>) -> Result<Running, StartError> {
        config.check()?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let credentials = Credentials::open_all(&config.upstream_auth, &config.upstreams)?;
        let access = Access::open(&config.auth, only_for)?;
        let live = Arc::new(LiveConfig::new(config));
        let config = live.now();
        let lock = lock_directory(&config.data_dir).await?;
        let git_config = prepare_directories(&config).await?;
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        // What finds credentials is long, and done with soon.
        let (store, store_tasks) = Box::pin(open_store(&config)).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let kill = CancellationToken::new();
        let git = Git::new(git_config, kill.clone());
        check_git(&git).await?;
        let publisher = Publisher::new(git.clone(), store.clone(), Arc::clone(&live));
        let stop_and_credentials = (credentials, stop.clone());
        let registry = Registry::new(Arc::clone(&live), git, publisher, stop_and_credentials)
            .map_err(StartError::HttpClient)?;
        store_tasks.collect(&store, &live);
        let life = Arc::new(Lifecycle::new(shutdown.clone()));
        let router = http::router(Arc::clone(&registry), store, (access, Arc::clone(&life)));
        let server = Server {
            live,
            registry: Arc::clone(&registry),
            shutdown: shutdown.clone(),
            stop: stop.clone(),
            kill,
            store_tasks,
            lock,
        };
        let task = tokio::spawn(server.run(Listener::new(listener, tls), router));
        let running = Running {
            address,
            shutdown,
            registry,
            task,
        };
        if let Err(source) = open_existing(&running.registry).await {
            stop.cancel();
            running.stopped().await;
            let path = mirrors(&config);
            let source = source.into();
            return Err(StartError::Prepare { path, source });
        }
        running.registry.watch_disk();
        life.note_started();
        Ok(running)
    }
}

/// Fails if the installed git can't be used.
async fn check_git(git: &Git) -> Result<(), StartError> {
    let git = git.clone();
    let checked = tokio::task::spawn_blocking(move || check_version(&git)).await;
    // Only a panic, or the end of the runtime, keeps it from ending.
    Ok(checked.unwrap_or(Ok(()))?)
}

/// Makes what the daemon needs below its data directory: gives the file that stands for the user's git
/// configuration.
async fn prepare_directories(config: &Config) -> Result<PathBuf, StartError> {
    let prepare = |path: PathBuf| {
        move |source: std::io::Error| StartError::Prepare {
            path,
            source: source.into(),
        }
    };
    let git_config = write_git_config(config).map_err(prepare(config.data_dir.clone()))?;
    let ended_processes = end_orphans(&git_config).await;
    if ended_processes > 0 {
        tracing::warn!(ended_processes, "Ended what an earlier daemon left running");
    }
    let tmp = tmp_directory(config);
    sweep(&tmp).map_err(prepare(tmp.clone()))?;
    let mirrors = mirrors(config);
    std::fs::create_dir_all(&mirrors).map_err(prepare(mirrors.clone()))?;
    Ok(git_config)
}

/// Starts the tasks of all mirrors on disk.
async fn open_existing(registry: &Arc<Registry>) -> std::io::Result<()> {
    let registry = Arc::clone(registry);
    let open = tokio::task::spawn_blocking(move || registry.open_existing());
    open.await.map_err(std::io::Error::other)?
}

/// Serves until it is told to stop, and ends what the daemon does.
struct Server {
    live: Arc<LiveConfig>,
    registry: Arc<Registry>,
    /// Cancelled when the daemon is told to stop.
    shutdown: CancellationToken,
    /// Cancelled when it does: no more connections are taken, and no more jobs begin.
    stop: CancellationToken,
    /// Cancelled some time after that: jobs that still run are given up.
    kill: CancellationToken,
    store_tasks: StoreTasks,
    lock: File,
}

impl Server {
    async fn run(self, listener: Listener, router: Router) {
        let stop_timeout = self.live.now().mirrors.stop_timeout;
        let kill = kill_late(self.stop.clone(), self.kill.clone(), stop_timeout);
        let serve = self.serve(listener, router);
        tokio::pin!(serve);
        tokio::select! {
            () = &mut serve => {}
            () = kill => serve.await,
        }
    }

    async fn serve(self, listener: Listener, router: Router) {
        let stopped = self.stop.clone();
        let live = Arc::clone(&self.live);
        let head_timeout = move || live.now().head_timeout;
        let served = listener::serve(listener, router, stopped, head_timeout);
        let limit = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.drain() => self.stop.cancel(),
            }
            tokio::time::sleep(DRAIN_LIMIT).await;
        };
        tokio::select! {
            () = served => {}
            () = limit => tracing::warn!("Answers that were still under way were cut off"),
        }
        self.stop.cancel();
        self.registry.join().await;
        self.store_tasks.stop().await;
        drop(self.lock);
    }

    /// Waits until the daemon is told to stop, and then until load balancers have noticed.
    async fn drain(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(self.live.now().drain_delay).await;
    }
}

impl Reloader {
    /// Puts `config` in force; what it doesn't name any more ends after what is under way, and what it
    /// names anew is started. Gives the keys that differ but take a restart. A configuration that can't
    /// be used changes nothing.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, ConfigError> {
        config.check()?;
        let fixed = self.0.live_config().replace(config);
        if let Err(error) = open_existing(&self.0).await {
            tracing::error!(%error, "Looking for mirrors failed");
        }
        Ok(fixed)
    }
}

impl Running {
    /// What changes the configuration.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.registry))
    }

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
/// Makes sure that no other daemon sweeps, fetches or publishes in `directory`, as long as the file is open.
pub(crate) async fn lock_directory(directory: &Path) -> Result<File, StartError> {
    let path = directory.join("lock");
    let open = || {
        create_private(directory)?;
        File::create(&path)
    };
    let lock = open().map_err(|source| StartError::Prepare {
        path: path.clone(),
        source: source.into(),
    })?;
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    while lock.try_lock().is_err() {
        if tokio::time::Instant::now() > deadline {
            let directory = directory.to_owned();
            return Err(StartError::InUse { directory });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(lock)
}

/// Removes what an earlier run of the daemon left.
pub(crate) fn sweep(tmp: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(tmp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(tmp)
}

/// The settings that every git of the daemon gets. Versions of git differ in their defaults, and files
/// in the home directory of the daemon's user must not change a snapshot.
///
/// Upstreams on this machine may belong to other users. Programs that git starts find bare repositories by
/// their directory. The daemon maintains mirrors itself (`mirror/maintain.rs`).
const GIT_CONFIG: &str = "\
[safe]
\tdirectory = *
\tbareRepository = all
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\thooksPath = /dev/null
\tfsmonitor = false
[init]
\tdefaultBranch = main
[gc]
\tauto = 0
[maintenance]
\tauto = false
";

/// The setting that goes before the operator's: with another, git lets other users read a mirror.
const PRIVATE: &str = "[core]\n\tsharedRepository = umask\n";

/// Writes the file that stands for the user's git configuration. It includes the operator's file, which
/// may name credential helpers.
fn write_git_config(config: &Config) -> std::io::Result<PathBuf> {
    let directory = std::path::absolute(config.data_dir.join("config/git"))?;
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("config");
    let mut text = GIT_CONFIG.to_owned();
    if let Some(file) = &config.git.config_file {
        let file = std::path::absolute(file)?
            .to_string_lossy()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        text.extend(["[include]\n\tpath = \"", &file, "\"\n"]);
    }
    text.push_str(PRIVATE);
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(&path)?;
    Ok(path)
}
