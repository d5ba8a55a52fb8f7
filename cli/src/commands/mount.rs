//! `cachewfs mount`: mounts the repositories of a daemon, in the background or the foreground.

use std::path::PathBuf;

use anyhow::Result;
use cachewfs_fuse::MountError;
use tracing::{error, warn};

use crate::error::CliError;
use crate::json_choice::JsonChoice;
use crate::mount_report::MountReport;
use crate::mounting::{
    Beginning, MountSettings, OPTIONS_HELP, UnknownOptions, daemon_urls, serve, start_logging,
};
use crate::mounts::{MountChoice, block_on};
use crate::{daemonise, holder, local};

/// Mount the repositories of a daemon, or of an embedded one
///
///   cachewfs mount http://cachew.example.com:8080 /cachewfs
///   cachewfs mount http://a:8080,http://b:8080 /cachewfs     each daemon is tried in turn
///   cachewfs mount --local /var/lib/cachewfs /cachewfs       the daemon runs in this process
///   cachewfs mount --replace /cachewfs      a new process serves it, such as after an upgrade
///   cachewfs mount http://a:8080 /cachewfs -o cache_size=100G,hydrate=hot
///
/// The directory /cachewfs/github.com/org/repo then is that repository. The command returns when
/// the mount is ready; a process in the background serves it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = OPTIONS_HELP, override_usage = "\
cachewfs mount [OPTIONS] <URL>[,<URL>…] <MOUNTPOINT>
       cachewfs mount [OPTIONS] --local <DIR> <MOUNTPOINT>
       cachewfs mount [OPTIONS] --replace <MOUNTPOINT>")]
pub(crate) struct Args {
    /// The daemon's URL, or several with commas between them. With --local or --replace, leave it
    /// out.
    #[arg(value_name = "URL")]
    first: Option<String>,

    /// The directory to mount at.
    #[arg(value_name = "MOUNTPOINT")]
    second: Option<String>,

    /// Run a daemon in the process of the mount, and keep its mirrors and snapshots in DIR.
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,

    /// Add a host that the daemon of --local mirrors from, or replace the URL of a default host.
    ///
    /// For example github.com=https://github.com or work=file:///srv/git. May be given several
    /// times.
    #[arg(long, value_name = "HOST=URL", requires = "local")]
    upstream: Vec<String>,

    /// Take a running mount over from the process that serves it, without an interruption.
    ///
    /// Open files, working directories and running commands notice nothing. The mount keeps its
    /// options, but for those given with -o. If this fails, the old process goes on.
    #[arg(long, conflicts_with = "local")]
    replace: bool,

    /// Serve the mount in the foreground. Ctrl-C unmounts it.
    #[arg(short, long)]
    foreground: bool,

    /// Mount options, separated by commas.
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,

    #[command(flatten)]
    json: JsonChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let unknown = UnknownOptions::Refused;
    if args.replace {
        let (Some(mount_point), None) = (&args.first, &args.second) else {
            let reason = "give only the mount point with --replace";
            return Err(CliError::WrongArguments { reason }.into());
        };
        let settings = replacing(mount_point.into(), &args.options, unknown)?;
        return serve_settings(settings, None, (args.foreground, args.json));
    }
    let (source, mount_point) =
        source_and_mount_point(args).map_err(|reason| CliError::WrongArguments { reason })?;
    let daemons = source.map(daemon_urls).transpose()?.unwrap_or_default();
    let settings = MountSettings::parse(daemons, mount_point.into(), &args.options, unknown)?;
    let embedded = match &args.local {
        Some(directory) => Some(local::config(directory, &args.upstream)?),
        None => None,
    };
    serve_settings(settings, embedded, (args.foreground, args.json))
}

/// Returns the URL of a daemon, but for an embedded one, and the mount point.
fn source_and_mount_point(args: &Args) -> Result<(Option<&str>, &str), &'static str> {
    match (&args.first, &args.second, &args.local) {
        (Some(mount_point), None, Some(_)) => Ok((None, mount_point)),
        (Some(url), Some(mount_point), None) => Ok((Some(url), mount_point)),
        (Some(_), Some(_), Some(_)) => {
            Err("--local runs a daemon in the process of the mount: leave out the URL")
        }
        (Some(url), None, None) if daemon_urls(url).is_ok() => Err("the mount point is missing"),
        (Some(_), None, None) => Err("the URL of the daemon is missing, or --local DIR"),
        _ => Err("give a URL and a mount point, or --local DIR and a mount point"),
    }
}

/// Returns the settings to replace the process of the mount at `mount_point`.
pub(super) fn replacing(
    mount_point: PathBuf,
    options: &[String],
    unknown: UnknownOptions,
) -> Result<MountSettings> {
    let choice = MountChoice {
        mount: Some(mount_point.clone()),
    };
    let running = block_on(async {
        let asked = choice.connect_and(async |client| client.options().await);
        let refused = |source| MountError::Refused {
            path: mount_point,
            source,
        };
        Ok(asked.await?.map_err(refused)?)
    })?;
    Ok(MountSettings::replacing(running, options, unknown)?)
}

/// Serves a mount in this process, or starts a background process that serves it.
pub(super) fn serve_settings(
    mut settings: MountSettings,
    embedded: Option<local::Config>,
    (foreground, json): (bool, JsonChoice),
) -> Result<()> {
    let is_background = daemonise::is_background();
    if !foreground && !is_background {
        let report = daemonise::start_background()?;
        return json.print_json(&report);
    }
    if is_background {
        daemonise::leave_session();
    }
    // An embedded daemon ends with its process, and nothing could start it again.
    if is_background && !holder::is_held() && embedded.is_none() {
        return holder::hold();
    }
    let holder = holder::is_held()
        .then(holder::of_this_process)
        .transpose()?;
    if !is_background || settings.options.log.is_some() {
        start_logging(settings.options.log.as_deref())?;
    }
    run_in_runtime(async {
        let daemon = match embedded {
            Some(config) => Some(local::start(config).await?),
            None => None,
        };
        if let Some(daemon) = &daemon {
            settings.options.daemons = vec![daemon.url()];
            settings.options.secret_token = Some(daemon.token());
        }
        let on_ready = |report: &MountReport| {
            if is_background {
                daemonise::report_ready(report)
            } else {
                json.print_json(report)
            }
        };
        let outcome = serve(settings, holder, on_ready).await;
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
        outcome
    })
}

/// Serves a mount again whose process was killed by `signal`.
pub(crate) fn recover(signal: i32) -> Result<()> {
    daemonise::leave_session();
    let (holder, remains) = holder::remains()?;
    if let Some(log) = &remains.options.log {
        // Its directory may be gone. The mount is worth more than its log.
        start_logging(Some(log)).ok();
    }
    let point = remains.options.mount_point.display();
    warn!(
        signal,
        mount_point = %point,
        "The process of the mount at {point} was killed: another one goes on"
    );
    run_in_runtime(async {
        let settings = MountSettings {
            options: remains.options.clone(),
            beginning: Beginning::Recover(Box::new(remains)),
        };
        let outcome = serve(settings, Some(holder), |_| Ok(())).await;
        // A process in the background has no other place to say it.
        outcome.inspect_err(|reason| error!("The mount ends: {reason:#}"))
    })
}

fn run_in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    // Threads may still be blocked, by a dead network or in the kernel. Waiting for them could take
    // for ever; the end of the process ends them.
    runtime.shutdown_background();
    outcome
}
