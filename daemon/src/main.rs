//! `cachewfsd`: the daemon as a program.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use cachewfs_daemon::{
    CollectionReport, Config, Daemon, LogFormat, LogOutput, NewToken, Reloader, TRACE_TARGET,
    Traces,
};
use cachewfs_format::{Colours, RepoName};
use clap::{Parser, Subcommand, ValueEnum};
use rustix::fs::Mode;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, error, info, warn};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Mirrors git repositories and publishes snapshots of them over HTTP.
#[derive(Debug, Parser)]
#[command(name = "cachewfsd", version)]
struct Args {
    /// The configuration file; without one, the defaults are enough to run on loopback.
    #[arg(long, global = true, env = "CACHEWFSD_CONFIG")]
    config: Option<PathBuf>,
    /// How the log is written, whatever the configuration says.
    #[arg(long)]
    log: Option<Log>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether the configuration, and the files that it names, can be used, shows it without secrets,
    /// and ends.
    CheckConfig,
    /// Deletes from the store what no snapshot needs any more, and says what: snapshots beyond `keep_snapshots` and
    /// `keep_age`, and segments that no snapshot names, after `delete_grace`. The daemons may go on running, and
    /// do the same by themselves.
    Collect {
        /// Only says what would be deleted now.
        #[arg(long)]
        dry_run: bool,
        /// One JSON object a line, for scripts.
        #[arg(long)]
        json: bool,
        /// Which repositories, such as `github.com/org/repo`; all by default.
        repositories: Vec<RepoName>,
    },
    /// Makes a token, prints it, and prints its line for the file that `auth.tokens_file` names.
    NewToken {
        /// Who it is for.
        name: String,
        /// What policies may know them by.
        #[arg(long = "group")]
        groups: Vec<String>,
    },
    /// Reads a token from standard input and prints its line for the file that `auth.tokens_file` names.
    HashToken {
        /// Who it is for.
        name: String,
        /// What policies may know them by.
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
    /// The configuration of file, environment and arguments.
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Mirrors and segments are not for other users of the machine; git follows.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let args = Args::parse();
    match &args.command {
        Some(Command::NewToken { name, groups }) => return new_token(name, groups),
        Some(Command::HashToken { name, groups }) => return hash_token(name, groups),
        Some(Command::CheckConfig | Command::Collect { .. }) | None => {}
    }
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
        for error in Daemon::check(&config)? {
            let error = anyhow::Error::from(error);
            writeln!(std::io::stderr(), "Warning: here, {error:#}")?;
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
    let running = Daemon::start(config).await?;
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
            () = &mut stopped => anyhow::bail!("the daemon stopped by itself"),
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

/// Deletes what is not needed; fails in the end if something could not be done or is damaged.
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
        } else if !report.lfs || report.kept_snapshots > 0 || report.segments > 0 || is_bad {
            writeln!(std::io::stdout(), "{}", collected(&report, is_dry_run)).ok();
        }
    };
    Daemon::collect(config, repositories, is_dry_run, print).await?;
    anyhow::ensure!(bad == 0, "{bad} collections failed or found damage");
    Ok(())
}

/// What was done, for people.
fn collected(report: &CollectionReport, is_dry_run: bool) -> String {
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
        "{repo}{of}: {verb} {} snapshots and {} segments ({:.1} MiB); {} snapshots with {} segments stay",
        report.snapshots.len(),
        report.segments,
        report.bytes as f64 / f64::from(1 << 20),
        report.kept_snapshots,
        report.kept_segments,
    );
    if report.young_segments > 0 {
        let young = report.young_segments.to_string();
        text.extend([", and ", &young, " that are too young to go"]);
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

/// Spans for traces are not for the log, and all others for it alone.
fn start_layers(log: impl Layer<Registry> + Send + Sync, traces: Option<&Traces>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_for_log = filter_fn(|metadata| metadata.target() != TRACE_TARGET);
    let registry = tracing_subscriber::registry();
    match traces {
        // A filter of each layer costs a look-up whenever a span is entered: here, one is enough.
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

/// Reads the configuration again; one that can't be used changes nothing.
async fn reload(args: &Args, reloader: &Reloader) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    let read = async { Ok::<_, anyhow::Error>(reloader.reload(args.to_config()?).await?) };
    match read.await {
        Ok(fixed) => {
            info!("Read the configuration again");
            for key in fixed {
                warn!(key, "{key} stays as it was until a restart");
            }
        }
        Err(error) => {
            let error = format!("{error:#}");
            error!(
                error,
                "The new configuration can't be used: the old one stays in force"
            );
        }
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, if it started the daemon and wants to know.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "Can't tell systemd");
    }
}

const BAD_NAME: &str = "names and groups are letters, digits and any of - _ . @ /";

/// The token goes to standard error, its line to standard output, which may be added to the file.
fn new_token(name: &str, groups: &[String]) -> anyhow::Result<()> {
    let token = NewToken::generate().context("there are no random numbers")?;
    let line = token.line(name, groups).context(BAD_NAME)?;
    writeln!(
        std::io::stderr(),
        "The token, shown only now: {}",
        token.secret()
    )?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn hash_token(name: &str, groups: &[String]) -> anyhow::Result<()> {
    let mut token = String::new();
    std::io::stdin().lock().read_line(&mut token)?;
    let token = NewToken::parse(token.trim())
        .context("a token is cwfs_ and at least 32 letters and digits")?;
    let line = token.line(name, groups).context(BAD_NAME)?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
