//! Starting, running and stopping the daemon.
//!
//! ```text
//! start     check the configuration, lock data_dir, end orphans, empty tmp, open the store, listen
//!           serve HTTP: /readyz answers 503 until the mirrors on disk are found
//! shutdown  /readyz answers 503, requests are still taken ............ for drain_delay
//! stop      no more connections, no more jobs; answers in flight end . within DRAIN_LIMIT
//!           updates and publishes in flight end ...................... within mirrors.stop_timeout
//! kill      git processes that still run are killed
//! end       all tasks have ended; the lock is released
//! ```
//!
//! `shutdown`, `stop` and `kill` are cancellation tokens.

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

/// How long answers in flight may go on after `stop`.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long a start waits for the lock of a directory.
///
/// The lock may be held for a moment by a daemon that is about to end, or by a process between fork
/// and exec: it inherits all open files of its parent.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be used.
    #[error("the configuration can't be used")]
    Config(#[from] ConfigError),
    /// A directory or file below the data directory can't be created, emptied or read.
    #[error("can't prepare {path}")]
    Prepare {
        /// The directory or file.
        path: PathBuf,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another daemon has locked a directory that only one daemon can use.
    #[error("another daemon uses {directory}")]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The files in `[auth]` can't be used.
    #[error("can't load the tokens and the policy of [auth]")]
    Auth(#[from] AuthError),
    /// The files in `[tls]` can't be used.
    #[error("can't load the certificate and the key of [tls]")]
    Tls(#[from] TlsError),
    /// The credentials in `[upstream_auth]` can't be used.
    #[error("can't load the credentials of [upstream_auth]")]
    Credentials(#[from] CredentialError),
    /// The installed git can't be used.
    #[error("can't use the installed git")]
    Git(#[from] GitVersionError),
    /// The client for HTTP upstreams can't be created.
    #[error("can't create the HTTP client for upstreams")]
    HttpClient(#[source] reqwest::Error),
    /// The store can't be opened or listed.
    #[error("can't use the store {place}")]
    Store {
        /// The directory, or the bucket and its endpoint.
        place: String,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error.
        source: std::io::Error,
    },
}

/// A problem that would stop a start by the present user on this machine, but perhaps not where the
/// daemon runs.
#[derive(Debug, thiserror::Error)]
pub enum CheckWarning {
    /// Credentials for an upstream are missing.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The directory of the store can't be written, or credentials for the bucket are missing.
    #[error(transparent)]
    Store(#[from] StartError),
}

/// The entry point: starts daemons, checks configurations, collects garbage.
#[derive(Debug)]
pub struct Daemon;

/// A running daemon. It stops when [`Running::shutdown`] is cancelled; dropping this does not stop
/// it.
#[derive(Debug)]
pub struct Running {
    /// The address that the daemon listens on.
    pub address: SocketAddr,
    /// Cancelling this token stops the daemon.
    pub shutdown: CancellationToken,
    registry: Arc<Registry>,
    task: JoinHandle<()>,
}

/// A handle that changes the configuration of a running daemon.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Registry>);

impl Daemon {
    /// Checks the configuration and the files that it names: certificates, tokens, policy, the
    /// directory of the store. Returns an error if the daemon couldn't start with it anywhere.
    ///
    /// Missing credentials and permissions are only warnings. The daemon may run as another user or
    /// on another machine, and may get credentials only there (`LoadCredential=` of systemd).
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

    /// Collects the garbage of `repos`, or of all repositories if `repos` is empty. Daemons may run
    /// meanwhile.
    ///
    /// Calls `each` with the report of one repository after the other. If `is_dry_run`, it deletes
    /// nothing and reports what it would delete.
    pub async fn collect(
        config: &Config,
        repos: Vec<RepoName>,
        is_dry_run: bool,
        each: impl FnMut(CollectionReport),
    ) -> Result<(), StartError> {
        config.check()?;
        collect_on_demand(config, (repos, is_dry_run), each).await
    }

    /// Starts the daemon in the current tokio runtime, which must have several threads.
    ///
    /// The daemon serves HTTP while it still looks for mirrors on disk, so that health checks get
    /// answers. When this function returns, it has found all mirrors.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        Self::start_with(config, None).await
    }

    /// Starts the daemon like [`Daemon::start`], but it answers only requests with `token`, even
    /// for `/healthz`.
    ///
    /// Every user of the machine, and every web page in their browsers, can send requests to a
    /// loopback address.
    pub async fn start_with_token(config: Config, token: &NewToken) -> Result<Running, StartError> {
        Self::start_with(config, Some(token)).await
    }

    async fn start_with(config: Config, token: Option<&NewToken>) -> Result<Running, StartError> {
        config.check()?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let credentials = Credentials::open_all(&config.upstream_auth, &config.upstreams)?;
        let access = Access::open(&config.auth, token)?;
        let live = Arc::new(LiveConfig::new(config));
        let config = live.now();
        // Before any file is touched: preparing the directory kills git processes and empties
        // `tmp`, which must not happen to a running daemon.
        let lock = lock_directory(&config.data_dir).await?;
        let git_config = prepare_directories(&config).await?;
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        // Boxed, because the AWS SDK's future that looks for credentials is large.
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
        // After serving has begun: with many mirrors this takes a while, and a supervisor should
        // see a daemon that starts, not one that is dead.
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

/// Returns an error if git is missing or too old.
async fn check_git(git: &Git) -> Result<(), StartError> {
    let git = git.clone();
    let checked = tokio::task::spawn_blocking(move || check_version(&git)).await;
    // A join error means a panic, which its hook has reported, or the end of the runtime.
    Ok(checked.unwrap_or(Ok(()))?)
}

/// Creates the files and directories that the daemon needs in its data directory, and removes what
/// an earlier run left there. Returns the path of git's configuration file.
async fn prepare_directories(config: &Config) -> Result<PathBuf, StartError> {
    let prepare = |path: PathBuf| {
        move |source: std::io::Error| StartError::Prepare {
            path,
            source: source.into(),
        }
    };
    let git_config = write_git_config(config).map_err(prepare(config.data_dir.clone()))?;
    // First of all: git processes of a killed daemon could still write to mirrors and `tmp`.
    let ended_processes = end_orphans(&git_config).await;
    if ended_processes > 0 {
        tracing::warn!(
            ended_processes,
            "Killed {ended_processes} git processes that an earlier daemon left running"
        );
    }
    let tmp = tmp_directory(config);
    sweep(&tmp).map_err(prepare(tmp.clone()))?;
    let mirrors = mirrors(config);
    std::fs::create_dir_all(&mirrors).map_err(prepare(mirrors.clone()))?;
    Ok(git_config)
}

/// Starts the task of each mirror on disk.
async fn open_existing(registry: &Arc<Registry>) -> std::io::Result<()> {
    let registry = Arc::clone(registry);
    let open = tokio::task::spawn_blocking(move || registry.open_existing());
    open.await.map_err(std::io::Error::other)?
}

/// The running parts of the daemon, which [`Server::run`] ends in order.
struct Server {
    live: Arc<LiveConfig>,
    registry: Arc<Registry>,
    /// Cancelled by the owner of the daemon: `/readyz` answers 503.
    shutdown: CancellationToken,
    /// Cancelled `drain_delay` later: no more connections are taken and no more jobs begin.
    stop: CancellationToken,
    /// Cancelled `mirrors.stop_timeout` later: git processes that still run are killed.
    kill: CancellationToken,
    store_tasks: StoreTasks,
    lock: File,
}

impl Server {
    async fn run(self, listener: Listener, router: Router) {
        let stop_timeout = self.live.now().mirrors.stop_timeout;
        let kill = kill_after_stop(self.stop.clone(), self.kill.clone(), stop_timeout);
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
            () = limit => {
                tracing::warn!("Cut off answers in flight: they didn't end within {DRAIN_LIMIT:?}");
            }
        }
        self.stop.cancel();
        // In this order: jobs use the store until their end, and another daemon may start in the
        // data directory only after both.
        self.registry.join().await;
        self.store_tasks.stop().await;
        drop(self.lock);
    }

    /// Waits for `shutdown`, and then for the time that load balancers need to notice it.
    async fn drain(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(self.live.now().drain_delay).await;
    }
}

impl Reloader {
    /// Puts `config` into force. Returns the keys that differ but need a restart.
    ///
    /// The tasks of repositories whose upstream is gone end after the present job. Tasks of mirrors
    /// on disk whose upstream is new begin. If `config` can't be used, nothing changes.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, ConfigError> {
        config.check()?;
        let fixed = self.0.live_config().replace(config);
        if let Err(error) = open_existing(&self.0).await {
            tracing::error!(%error, "Can't look for mirrors on disk after a reload: {error}");
        }
        Ok(fixed)
    }
}

impl Running {
    /// Returns a handle that changes the configuration.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.registry))
    }

    /// Waits until the daemon has stopped.
    pub async fn stopped(self) {
        // A panic has been reported by its hook already.
        self.task.await.ok();
    }
}

/// Waits for `stop` and then for `limit`, so that running git commands may end. Then it kills them.
async fn kill_after_stop(stop: CancellationToken, kill: CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
    kill.cancel();
}

/// Returns the directory of temporary files. Staging is here, so it must be on the filesystem of
/// the mirrors, for renames.
pub(crate) fn tmp_directory(config: &Config) -> PathBuf {
    config.data_dir.join("tmp")
}

/// Locks `directory`, and creates it if it is missing. While the returned file is open, no other
/// daemon works in the directory.
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
    let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
    while lock.try_lock().is_err() {
        if tokio::time::Instant::now() > deadline {
            let directory = directory.to_owned();
            return Err(StartError::InUse { directory });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(lock)
}

/// Empties `tmp`, where an earlier run of the daemon may have left files, or creates it.
pub(crate) fn sweep(tmp: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(tmp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(tmp)
}

/// The settings that every git process of the daemon gets.
///
/// Versions of git differ in their defaults, and files in the home directory of the daemon's user
/// must not change a snapshot. So everything that a snapshot depends on is set here:
///
/// - `safe.directory`: upstreams on this machine may belong to other users.
/// - `safe.bareRepository`: programs that git starts find bare repositories by their directory.
/// - `gc.auto`, `maintenance.auto`: the daemon maintains mirrors itself (`mirror/maintain.rs`).
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

/// A setting that overrides the operator's file. With any other value, git would let other users of
/// the machine read a mirror.
const PRIVATE_MIRRORS: &str = "[core]\n\tsharedRepository = umask\n";

/// Writes the file that replaces the user's git configuration, and returns its path. It includes
/// the operator's file, which may name credential helpers.
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
    // Of several values of a setting, git takes the last one.
    text.push_str(PRIVATE_MIRRORS);
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(&path)?;
    Ok(path)
}
