//! Starting, running and stopping the daemon.
//!
//! ```text
//! start     check the configuration, lock data_dir, end orphans, empty tmp, open the store, listen
//!           serve HTTP: /readyz answers 503 until the mirrors on disk are found
//! shutdown  /readyz answers 503, requests are still taken ............ for drain_delay
//! stop      no more connections, no more jobs; answers in flight end . within DRAIN_LIMIT
//!           updates and publishes in flight end ................ within stop_timeout
//! kill      git processes that still run are killed
//! end       all tasks have ended; the lock is released
//! ```
//!
//! `shutdown`, `stop` and `kill` are cancellation tokens.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cachewfs_format::RepoName;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{Access, NewToken};
use crate::base::{ConfigError, lock_directory, sweep};
use crate::check_directory::{Obstacle, obstacle};
use crate::collect_command::{CollectionReport, collect_on_demand};
use crate::config::{Config, LiveConfig};
use crate::http;
use crate::listener::{self, Listener, Tls};
use crate::mirror::{Credentials, Git, check_version, kill_orphans, write_global_config};
use crate::open_store::{StoreTasks, check_store, open_store};
use crate::parts::Parts;
use crate::publish::Publisher;
use crate::readiness::Lifecycle;
use crate::repository::{Context, LfsRuns, Registry};
use crate::start_error::{CheckWarning, StartError};
use crate::traces::link_by;

/// How long answers in flight may go on after `stop`.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The entry point: starts daemons, checks configurations, collects garbage.
///
/// The default has no parts: its store is on disk.
#[derive(Clone, Debug, Default)]
pub struct Daemon(Parts);

/// A running daemon. It stops when [`Running::shutdown`] is cancelled; dropping this does not stop
/// it.
#[derive(Debug)]
pub struct Running {
    /// The address that the daemon listens on.
    pub address: SocketAddr,
    /// Cancelling this token stops the daemon.
    pub shutdown: CancellationToken,
    reloader: Reloader,
    task: JoinHandle<()>,
}

/// A handle that changes the configuration of a running daemon.
#[derive(Clone, Debug)]
pub struct Reloader {
    live: Arc<LiveConfig>,
    registry: Arc<Registry>,
}

impl Daemon {
    /// Returns a daemon that can do what `parts` can.
    pub fn with_parts(parts: Parts) -> Self {
        Self(parts)
    }

    /// Checks the configuration and the files that it names: certificates, tokens, policy, the
    /// directory of the store. Returns an error if the daemon couldn't start with it anywhere.
    ///
    /// Missing credentials and permissions are only warnings. The daemon may run as another user or
    /// on another machine, and may get credentials only there (`LoadCredential=` of systemd).
    pub fn check(&self, config: &Config) -> Result<Vec<CheckWarning>, StartError> {
        self.check_values(config)?;
        config.tls.as_ref().map(Tls::open).transpose()?;
        Access::open(&config.auth, self.0.read_policy, None)?;
        let mut warnings = Vec::new();
        let path = config.data_dir.path().to_owned();
        match obstacle(&path) {
            None => {}
            Some(Obstacle::ForAll(source)) => return Err(StartError::DataDir { path, source }),
            Some(Obstacle::Here(source)) => {
                warnings.push(StartError::DataDir { path, source }.into());
            }
        }
        warnings.extend(check_store(config, &self.0)?);
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
        &self,
        config: &Config,
        repos: Vec<RepoName>,
        is_dry_run: bool,
        each: impl FnMut(CollectionReport),
    ) -> Result<(), StartError> {
        self.check_values(config)?;
        collect_on_demand((config, &self.0), (repos, is_dry_run), each).await
    }

    /// Starts the daemon in the current tokio runtime, which must have several threads.
    ///
    /// The daemon serves HTTP while it still looks for mirrors on disk, so that health checks get
    /// answers. When this function returns, it has found all mirrors.
    pub async fn start(&self, config: Config) -> Result<Running, StartError> {
        self.start_with(config, None).await
    }

    /// Starts the daemon like [`Daemon::start`], but it answers only requests with `token`, even
    /// for `/healthz`.
    ///
    /// Every user of the machine, and every web page in their browsers, can send requests to a
    /// loopback address.
    pub async fn start_with_token(
        &self,
        config: Config,
        token: &NewToken,
    ) -> Result<Running, StartError> {
        self.start_with(config, Some(token)).await
    }

    /// Returns an error for the first key whose value can't work, or can't work without a part that
    /// is missing.
    fn check_values(&self, config: &Config) -> Result<(), ConfigError> {
        config.check()?;
        self.0.check(config)
    }

    async fn start_with(
        &self,
        config: Config,
        token: Option<&NewToken>,
    ) -> Result<Running, StartError> {
        self.check_values(&config)?;
        if let Some(links) = &self.0.trace_links {
            link_by(links);
        }
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let credentials = Credentials::open_all(&config.upstream_auth, &config.upstreams)?;
        let access = Access::open(&config.auth, self.0.read_policy, token)?;
        let live = Arc::new(LiveConfig::new(config));
        let config = live.now();
        // Before any file is touched: preparing the directory kills git processes and empties
        // `tmp`, which must not happen to a running daemon.
        let lock = lock_directory(config.data_dir.path()).await?;
        let git_config = prepare_directories(&config).await?;
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        let (store, store_tasks) = open_store(&config, &self.0).await?;
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
        let context = Context::new(Arc::clone(&live), git, publisher, stop_and_credentials)
            .map_err(StartError::HttpClient)?;
        let lfs = LfsRuns::new(Arc::clone(&context));
        let registry = Arc::new(Registry::new(Arc::clone(&context), Arc::clone(&lfs)));
        store_tasks.collect(&store, &live);
        let life = Arc::new(Lifecycle::new(shutdown.clone()));
        let repositories = (Arc::clone(&context), Arc::clone(&registry), lfs);
        let router = http::router(repositories, store, (access, Arc::clone(&life)));
        let server = Server {
            live: Arc::clone(&live),
            context: Arc::clone(&context),
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
            reloader: Reloader { live, registry },
            task,
        };
        // After serving has begun: with many mirrors this takes a while, and a supervisor should
        // see a daemon that starts, not one that is dead.
        if let Err(source) = open_existing(&running.reloader.registry).await {
            stop.cancel();
            running.stopped().await;
            let path = config.data_dir.mirrors();
            let source = source.into();
            return Err(StartError::Prepare { path, source });
        }
        context.watch_disk();
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
    let data_dir = &config.data_dir;
    let git_config = write_global_config(&data_dir.git_config(), config.git.config_file.as_deref())
        .map_err(prepare(data_dir.path().to_owned()))?;
    // First of all: git processes of a killed daemon could still write to mirrors and `tmp`.
    let ended_processes = kill_orphans(&git_config).await;
    if ended_processes > 0 {
        tracing::warn!(
            ended_processes,
            "Killed {ended_processes} git processes that an earlier daemon left running"
        );
    }
    let tmp = data_dir.tmp();
    sweep(&tmp).map_err(prepare(tmp.clone()))?;
    let mirrors = data_dir.mirrors();
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
    context: Arc<Context>,
    /// Cancelled by the owner of the daemon: `/readyz` answers 503.
    shutdown: CancellationToken,
    /// Cancelled `drain_delay` later: no more connections are taken and no more jobs begin.
    stop: CancellationToken,
    /// Cancelled `stop_timeout` later: git processes that still run are killed.
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
        self.context.join().await;
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
        let fixed = self.live.replace(config);
        if let Err(error) = open_existing(&self.registry).await {
            tracing::error!(%error, "Can't look for mirrors on disk after a reload: {error}");
        }
        Ok(fixed)
    }
}

impl Running {
    /// Returns a handle that changes the configuration.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_without_parts_refuses_their_keys() {
        for (text, key) in [
            ("[store.s3]\nbucket = 'bucket'", "[store.s3]"),
            ("[auth]\npolicy = '/policy.rego'", "policy /policy.rego"),
            (
                "[tracing]\nendpoint = 'http://collector'",
                "tracing.endpoint",
            ),
        ] {
            let config: Config = toml::from_str(text).unwrap();

            let error = Daemon::default().check(&config).unwrap_err();

            let error = crate::base::chain(&error);
            assert!(error.contains(key), "{error}");
            assert!(error.contains("only cachewfsd"), "{error}");
        }
    }
}
