//! `cachewfsd`: the daemon as a program.

use std::path::PathBuf;

use anyhow::Context as _;
use cachewfs_daemon::{Config, Daemon};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Mirrors git repositories and publishes snapshots of them over HTTP.
#[derive(Debug, Parser)]
#[command(name = "cachewfsd", version)]
struct Args {
    /// The configuration file; without one, the defaults are enough to run on loopback.
    #[arg(long, global = true, env = "CACHEWFSD_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says whether the configuration can be used, and ends.
    CheckConfig,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config.check()?;
    if let Some(Command::CheckConfig) = args.command {
        return Ok(());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate()).context("can't wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't wait for SIGINT")?;
    let running = Daemon::start(config).await?;
    tracing::info!(address = %running.address, "Serving http://{}", running.address);
    let shutdown = running.shutdown.clone();
    let stopped = running.stopped();
    tokio::pin!(stopped);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = &mut stopped => anyhow::bail!("the daemon stopped by itself"),
    }
    shutdown.cancel();
    stopped.await;
    Ok(())
}
