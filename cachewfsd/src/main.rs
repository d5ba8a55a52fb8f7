//! The program `cachewfsd`: arguments, signals and log around the daemon.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use cachewfs_daemon::{
    CollectionReport, Config, LogFormat, LogOutput, NewToken, Reloader, TRACE_TARGET,
};
use cachewfs_format::{Colours, RepoName};
use cachewfsd::Traces;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use rustix::fs::Mode;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, error, info, warn};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Mirrors git repositories and publishes snapshots of them over HTTP.
///
///   cachewfsd                                                   on loopback, with the defaults
///   cachewfsd --config /etc/cachewfs/cachewfsd.toml
///   cachewfsd --config /etc/cachewfs/cachewfsd.toml check-config
#[derive(Debug, Parser)]
#[command(name = "cachewfsd", version, verbatim_doc_comment)]
struct Args {
    /// The configuration file. Without one, the daemon listens on loopback, with the defaults.
    #[arg(long, global = true, env = "CACHEWFSD_CONFIG")]
    config: Option<PathBuf>,
    /// The format of the log; overrides `log` in the configuration.
    #[arg(long)]
    log: Option<Log>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and the files that it names
    ///
    ///   cachewfsd --config cachewfsd.toml check-config && systemctl reload cachewfsd
    ///
    /// If the daemon can't start with this configuration, the command fails and says why. Otherwise
    /// it prints the configuration in force, without secrets.
    #[command(verbatim_doc_comment)]
    CheckConfig,
    /// Collect garbage in the store: old snapshots, and segments that no snapshot names
    ///
    ///   cachewfsd collect --dry-run
    ///   cachewfsd collect --json github.com/org/repo
    ///
    /// Deletes snapshots beyond `snapshots` and `age` of `[keep]`, and segments that no snapshot
    /// names and that are older than its `grace`. Daemons may run meanwhile; they also collect
    /// garbage by themselves.
    #[command(verbatim_doc_comment)]
    Collect {
        /// Print what would be deleted, and delete nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object per repository and line, for scripts.
        #[arg(long)]
        json: bool,
        /// Repositories such as `github.com/org/repo`; all by default.
        repositories: Vec<RepoName>,
    },
    /// Make a token, and print its line for the tokens file
    ///
    ///   cachewfsd new-token alice --group developers >> /etc/cachewfs/tokens
    ///
    /// The token itself goes to standard error, the line for `auth.tokens_file` to standard output.
    #[command(verbatim_doc_comment)]
    NewToken {
        /// The name of the person or program that gets the token.
        name: String,
        /// A group that policies may refer to; can be repeated.
        #[arg(long = "group")]
        groups: Vec<String>,
    },
    /// Write the manual pages into a directory
    ///
    ///   cachewfsd man /usr/local/share/man/man1
    ///
    /// Packages bring them.
    #[command(verbatim_doc_comment)]
    Man {
        /// The directory, which must exist.
        directory: PathBuf,
    },
    /// Read a token from standard input, and print its line for `auth.tokens_file`
    ///
    ///   cachewfsd hash-token alice --group developers < token >> /etc/cachewfs/tokens
    #[command(verbatim_doc_comment)]
    HashToken {
        /// The name of the person or program that gets the token.
        name: String,
        /// A group that policies may refer to; can be repeated.
        #[arg(long = "group")]
        groups: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Log {
    Human,
    Json,
}

impl Args {
    /// Returns the configuration from file, environment and arguments.
    fn to_config(&self) -> anyhow::Result<Config> {
        let config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let mut config = config.with_environment(std::env::vars_os())?;
        if let Some(log) = self.log {
            config.log = match log {
                Log::Human => LogFormat::Human,
                Log::Json => LogFormat::Json,
            };
        }
        Ok(config)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, without a backtrace: what failed is outside of this program. If standard
            // error is closed, there is no other place to report that.
            writeln!(std::io::stderr(), "cachewfsd: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    // Other users of the machine must not read mirrors and segments. git processes inherit the
    // mask.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let args = Args::parse();
    match &args.command {
        Some(Command::NewToken { name, groups }) => return new_token(name, groups),
        Some(Command::HashToken { name, groups }) => return hash_token(name, groups),
        Some(Command::Man { directory }) => {
            return clap_mangen::generate_to(Args::command(), directory).with_context(|| {
                format!("can't write the manual pages into {}", directory.display())
            });
        }
        Some(Command::CheckConfig | Command::Collect { .. }) | None => {}
    }
    let daemon = cachewfsd::daemon();
    let config = args.to_config()?;
    if let Some(Command::Collect {
        dry_run,
        json,
        repositories,
    }) = args.command
    {
        start_log(config.log, None);
        return collect(&config, repositories, (dry_run, json)).await;
    }
    if let Some(Command::CheckConfig) = args.command {
        for error in daemon.check(&config)? {
            let error = anyhow::Error::from(error);
            writeln!(
                std::io::stderr(),
                "Warning: {error:#} (checked as the present user on this machine)"
            )?;
        }
        std::io::stdout().write_all(config.to_shown_toml().as_bytes())?;
        return Ok(());
    }
    let traces = Traces::start(&config.tracing)?;
    start_log(config.log, traces.as_ref());
    let mut terminate = signal(SignalKind::terminate()).context("can't wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("can't wait for SIGHUP")?;
    let scheme = config.tls.as_ref().map_or("http", |_| "https");
    let running = daemon.start(config).await?;
    info!(address = %running.address, "Serving {scheme}://{}", running.address);
    notify(&[NotifyState::Ready]);
    let (shutdown, reloader) = (running.shutdown.clone(), running.reloader());
    let stopped = running.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&args, &reloader).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut stopped => anyhow::bail!("the daemon stopped without a signal: see its log"),
        }
    }
    info!("Stopping");
    notify(&[NotifyState::Stopping]);
    shutdown.cancel();
    stopped.await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(())
}

/// Collects garbage and prints a report for each repository. Returns an error after the last one if
/// any collection failed or found damage.
async fn collect(
    config: &Config,
    repositories: Vec<RepoName>,
    (is_dry_run, is_json): (bool, bool),
) -> anyhow::Result<()> {
    let mut bad = 0;
    let print = |report: CollectionReport| {
        let is_bad = report.error.is_some() || !report.missing_segments.is_empty();
        bad += usize::from(is_bad);
        if is_json {
            if let Ok(json) = serde_json::to_string(&report) {
                writeln!(std::io::stdout(), "{json}").ok();
            }
        // Most repositories have no LFS objects; a line of zeros for each would hide the others.
        } else if !report.lfs || report.kept_snapshots > 0 || report.segments > 0 || is_bad {
            writeln!(std::io::stdout(), "{}", report_line(&report, is_dry_run)).ok();
        }
    };
    let daemon = cachewfsd::daemon();
    daemon
        .collect(config, repositories, is_dry_run, print)
        .await?;
    anyhow::ensure!(
        bad == 0,
        "{bad} collections failed or found damage: see the reports above"
    );
    Ok(())
}

/// Returns the report as a line for people.
fn report_line(report: &CollectionReport, is_dry_run: bool) -> String {
    let repo = &report.repo;
    let of = if report.lfs { " (LFS)" } else { "" };
    if let Some(error) = &report.error {
        return format!("{repo}{of}: failed: {error}");
    }
    let verb = if is_dry_run {
        "would delete"
    } else {
        "deleted"
    };
    let mut text = format!(
        "{repo}{of}: {verb} {} snapshots and {} segments ({:.1} MiB); \
         {} snapshots with {} segments stay",
        report.snapshots.len(),
        report.segments,
        report.bytes as f64 / f64::from(1 << 20),
        report.kept_snapshots,
        report.kept_segments,
    );
    if report.young_segments > 0 {
        let young = report.young_segments.to_string();
        text.extend([", and ", &young, " younger than grace in [keep]"]);
    }
    if !report.missing_segments.is_empty() {
        let missing = report.missing_segments.len().to_string();
        text.extend([
            "; DAMAGED: ",
            &missing,
            " segments that snapshots name are not there",
        ]);
    }
    text
}

/// Starts the log, on standard error.
fn start_log(format: LogFormat, traces: Option<&Traces>) {
    let is_terminal = std::io::stderr().is_terminal();
    let colours = if is_terminal {
        Colours::Kept
    } else {
        Colours::Removed
    };
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(is_terminal)
        .with_writer(LogOutput::new(std::io::stderr, colours));
    match format {
        LogFormat::Human => start_layers(log, traces),
        LogFormat::Json => start_layers(log.json().flatten_event(true), traces),
    }
}

/// Starts the layers of `tracing`. The log doesn't take the spans for traces, and the traces take
/// nothing else.
fn start_layers(log: impl Layer<Registry> + Send + Sync, traces: Option<&Traces>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_for_log = filter_fn(|metadata| metadata.target() != TRACE_TARGET);
    let registry = tracing_subscriber::registry();
    match traces {
        // Without traces, one filter for everything. A filter per layer looks a span up whenever it
        // is entered, which made small range requests 8 % more expensive.
        None => registry.with(log).with(filter).with(is_for_log).init(),
        Some(traces) => {
            let is_for_traces = Targets::new().with_target(TRACE_TARGET, Level::INFO);
            registry
                .with(log.with_filter(filter.and(is_for_log)))
                .with(traces.layer().with_filter(is_for_traces))
                .init();
        }
    }
}

/// Reads the configuration again and puts it into force. If it can't be used, nothing changes.
async fn reload(args: &Args, reloader: &Reloader) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    let read = async { Ok::<_, anyhow::Error>(reloader.reload(args.to_config()?).await?) };
    match read.await {
        Ok(fixed) => {
            info!("Reloaded the configuration");
            for key in fixed {
                warn!(key, "{key} keeps its old value until a restart");
            }
        }
        Err(error) => {
            let error = format!("{error:#}");
            error!(
                error,
                "Can't use the new configuration, the old one stays in force: {error}"
            );
        }
    }
    notify(&[NotifyState::Ready]);
}

/// Notifies systemd, if it started the daemon with `Type=notify`.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "Can't notify systemd: {error}");
    }
}

const BAD_NAME: &str = "a name or group may only have letters, digits and - _ . @ /";

/// Prints a new token to standard error, and its line to standard output, so that the latter can be
/// redirected into the tokens file.
fn new_token(name: &str, groups: &[String]) -> anyhow::Result<()> {
    let token = NewToken::generate().context("can't get random numbers from the system")?;
    let line = token.line(name, groups).context(BAD_NAME)?;
    writeln!(
        std::io::stderr(),
        "The token, shown only now: {}",
        token.secret()
    )?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Prints the line of the token on standard input.
fn hash_token(name: &str, groups: &[String]) -> anyhow::Result<()> {
    let mut token = String::new();
    std::io::stdin().lock().read_line(&mut token)?;
    let token = NewToken::parse(token.trim())
        .context("a token must be cwfs_ and at least 32 letters and digits")?;
    let line = token.line(name, groups).context(BAD_NAME)?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
