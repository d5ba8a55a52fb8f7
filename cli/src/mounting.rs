//! Parses mount options, and serves a mount until it is unmounted.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use cachewfs_daemon::LogOutput;
use cachewfs_format::Colours;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use cachewfs_fuse::recovery::{Holder, Remains};
use cachewfs_fuse::{Hydrate, Mount, MountError, MountOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::daemonise::is_background;
use crate::error::CliError;
use crate::mount_report::MountReport;
use crate::mounts::MountChoice;
use crate::output;
use crate::remote::without_secrets;

/// The parsed options of `-o`.
#[derive(Debug)]
pub(crate) struct MountSettings {
    /// The options. Without a log file among them, the foreground process logs to standard error,
    /// and the background process doesn't log.
    pub(crate) options: MountOptions,
    /// How the process comes to the mount.
    pub(crate) beginning: Beginning,
}

/// How a process comes to the mount that it serves.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// It mounts.
    Mount,
    /// It takes the mount over from a running process.
    TakeOver,
    /// It goes on where a killed process stopped.
    Recover(Box<Remains>),
}

/// Options of mount(8), fstab and systemd that are accepted and change nothing.
///
/// A mount is always read-only, with `nosuid` and `nodev`. `rw` is accepted all the same: mount(8)
/// passes it to its helpers unless the user wrote `ro`. Of `user`, mount(8) also passes what it
/// implies, such as `noexec`.
const IGNORED: [&str; 23] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "dev",
    "default_permissions",
    "sync",
    "owner",
    "nosuid",
    "nodev",
    "noatime",
    "relatime",
    "nodiratime",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "users",
    "nouser",
    "group",
    "async",
    "dirsync",
];

/// The part of `--help` that explains `-o`.
pub(crate) const OPTIONS_HELP: &str = "\
Mount options (-o, separated by commas):
  allow_other          let other users read the mount too
  noexec               don't let programs of the mount be run
  uid=UID, gid=GID     the user and the group to whom the repositories belong [who mounts]; git
                       refuses repositories of others: see safe.directory in git-config(1)
  token_file=FILE      the file with the daemon's token; use it with https:// [none]
  cache_dir=DIR        the directory of the cache [/var/cache/cachewfs, ~/.cache/cachewfs]
  cache_size=SIZE      the most disk space that the cache may use, such as 50G [50G]
  read_timeout=TIME    how long a read waits for data before it fails, such as 60s [60s]
  lookup_timeout=TIME  how long a lookup, a listing or the target of a symbolic link waits [5s]
  poll_interval=TIME   how often the mount asks the daemon for new snapshots [10s]
  hydrate=AMOUNT       how much is fetched in the background: off, hot (only what a checkout needs)
                       or all [all]
  hydrate_rate=SIZE    the most bytes per second that hydrate may fetch [no limit]
  no_direct_reads      fetch all data from daemons; don't follow their redirects to the bucket
  no_passthrough       don't let the kernel read completely cached files without this process
  log=FILE             the log file of a mount in the background [none]
Options for fstab such as _netdev, nofail, noauto and x-systemd.* are accepted and ignored.
A mount is always read-only, with nosuid and nodev.";

/// The treatment of options that this program doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnknownOptions {
    /// They are an error.
    Refused,
    /// They are ignored, as `mount -s` wants it.
    Ignored,
}

impl MountSettings {
    /// Parses the settings of a mount. Each of `options` is a list separated by commas, as in
    /// fstab.
    pub(crate) fn parse(
        daemons: Vec<String>,
        mount_point: PathBuf,
        options: &[String],
        unknown: UnknownOptions,
    ) -> Result<Self, CliError> {
        let mut settings = Self {
            options: MountOptions::new(mount_point, daemons),
            beginning: Beginning::Mount,
        };
        settings.apply_all(options, unknown)?;
        Ok(settings)
    }

    /// Returns the settings of a process that replaces the one of a running mount: the options of
    /// the mount, and then `options`.
    pub(crate) fn replacing(
        running: MountOptions,
        options: &[String],
        unknown: UnknownOptions,
    ) -> Result<Self, CliError> {
        let before = running.clone();
        let mut settings = Self {
            options: running,
            beginning: Beginning::TakeOver,
        };
        settings.apply_all(options, unknown)?;
        let now = &settings.options;
        // The kernel has them from the mount on, or keeps the answers that depend on them.
        let unchangeable = [
            ("allow_other", now.allow_other != before.allow_other),
            ("noexec", now.noexec != before.noexec),
            ("uid", now.owner.uid != before.owner.uid),
            ("gid", now.owner.gid != before.owner.gid),
            ("no_passthrough", now.passthrough != before.passthrough),
        ];
        match unchangeable.iter().find(|(_, changes)| *changes) {
            None => Ok(settings),
            Some((option, _)) => Err(CliError::BadOption {
                option: (*option).to_owned(),
                reason: "it can't change while the mount is in use: unmount, and mount again"
                    .to_owned(),
            }),
        }
    }

    fn apply_all(&mut self, options: &[String], unknown: UnknownOptions) -> Result<(), CliError> {
        let options = options.iter().flat_map(|list| list.split(','));
        options
            .map(str::trim)
            .try_for_each(|option| self.apply(option, unknown))
    }

    fn apply(&mut self, option: &str, unknown: UnknownOptions) -> Result<(), CliError> {
        let bad = |reason: String| CliError::BadOption {
            option: option.to_owned(),
            reason,
        };
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let options = &mut self.options;
        match key {
            "" => {}
            "allow_other" => options.allow_other = true,
            "noexec" => options.noexec = true,
            "exec" => options.noexec = false,
            "uid" => options.owner.uid = id(value).map_err(bad)?,
            "gid" => options.owner.gid = id(value).map_err(bad)?,
            "token_file" => options.token_file = Some(absolute(value)),
            "cache_dir" => options.cache_dir = absolute(value),
            "cache_size" => options.cache_max_bytes = size(value).map_err(bad)?,
            "read_timeout" => options.read_timeout = time(value).map_err(bad)?,
            "lookup_timeout" => options.lookup_timeout = time(value).map_err(bad)?,
            "poll_interval" => options.poll_interval = time(value).map_err(bad)?,
            "hydrate" => options.hydrate = hydrate(value).map_err(bad)?,
            "hydrate_rate" => options.hydrate_max_rate = Some(size(value).map_err(bad)?),
            "no_direct_reads" => options.direct_reads = false,
            "no_passthrough" => options.passthrough = false,
            "log" => options.log = Some(absolute(value)),
            _ if IGNORED.contains(&key) || key.starts_with("x-") || key == "comment" => {}
            _ if unknown == UnknownOptions::Ignored => {}
            _ => return Err(bad("unknown option".to_owned())),
        }
        Ok(())
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

/// Parses a number of bytes, such as `512M`, `50G` or `1000`. Units are multiples of 1024.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let digits_len = upper.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = upper.split_at(digits_len);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        "T" | "TIB" => 1 << 40,
        _ => return Err("a size is a number with K, M, G or T after it, such as 50G".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size starts with a number".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// Parses the id of a user or a group.
fn id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "an id is a number, as `id -u` prints it".to_owned())
}

/// Parses a duration, such as `60s`, `5m` or `500ms`. A number without a unit is in seconds.
fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|_| "a time is a number with a unit, such as 500ms, 60s or 5m".to_owned())
}

fn hydrate(text: &str) -> Result<Hydrate, String> {
    match text {
        "off" => Ok(Hydrate::Off),
        "hot" => Ok(Hydrate::Hot),
        "all" => Ok(Hydrate::All),
        _ => Err("hydrate is off, hot or all".to_owned()),
    }
}

/// Splits the source of a mount, a list of URLs separated by commas, and checks each URL.
pub(crate) fn daemon_urls(source: &str) -> Result<Vec<String>, CliError> {
    source
        .split(',')
        .map(|url| {
            let url = url.trim();
            let shown = without_secrets(url);
            let reason = if !url.starts_with("http://") && !url.starts_with("https://") {
                "it must start with http:// or https://"
            } else if shown != url {
                "it may not contain a user or a password, because all users of the machine see it \
                 in `ps` and in the mount table. Put the daemon's token in a file, and name the \
                 file with -o token_file=FILE"
            } else {
                return Ok(url.to_owned());
            };
            Err(CliError::BadDaemonUrl { url: shown, reason })
        })
        .collect()
}

/// The events that are logged unless `CACHEWFS_LOG` says otherwise.
///
/// fuser would warn of each call that it answers with ENOSYS, such as `fsync`, although that is the
/// right answer. And it would report an error when it refuses the interrupt of a read that has just
/// been answered.
const DEFAULT_FILTER: &str = "info,fuser=error,fuser::reply=off";

/// Starts logging to the file `log`, or to standard error if there is no file.
pub(crate) fn start_logging(log: Option<&Path>) -> Result<()> {
    let filter =
        EnvFilter::try_from_env("CACHEWFS_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let Some(path) = log else {
        let (builder, colours) = if std::io::stderr().is_terminal() {
            (builder, Colours::Kept)
        } else {
            (builder.with_ansi(false), Colours::Removed)
        };
        let output = LogOutput::new(std::io::stderr, colours);
        builder.with_writer(output).init();
        return Ok(());
    };
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| CliError::Log {
            path: path.display().to_string(),
            source,
        })?;
    let output = LogOutput::new(Mutex::new(file), Colours::Removed);
    builder.with_ansi(false).with_writer(output).init();
    Ok(())
}

/// Mounts, calls `on_ready`, and serves the mount until it is unmounted. If this process is killed
/// before, `holder` starts another one.
///
/// SIGINT, SIGTERM and SIGQUIT unmount it; in the foreground, SIGHUP does too. Signals that have no
/// meaning here, such as SIGUSR1, change nothing.
pub(crate) async fn serve(
    settings: MountSettings,
    holder: Option<Holder>,
    on_ready: impl FnOnce(&MountReport) -> Result<()>,
) -> Result<()> {
    // The handlers come before the mount: a signal that ended the process while it is mounted would
    // leave a dead mount.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let _meaningless = [
        signal(SignalKind::user_defined1())?,
        signal(SignalKind::user_defined2())?,
        signal(SignalKind::alarm())?,
    ];
    // A background process ignores SIGHUP, because it doesn't belong to a terminal.
    let mut hangup = signal(SignalKind::hangup())?;
    raise_file_limit();
    let mut report = MountReport::new(&settings.options);
    let mount = match settings.beginning {
        Beginning::Mount => {
            let mount = start(settings.options).await?;
            report.outage = mount.outage().await;
            mount
        }
        Beginning::TakeOver => Mount::take_over(settings.options).await?,
        Beginning::Recover(remains) => Mount::recover(*remains).await?,
    };
    if let Some(holder) = holder {
        mount.protect(holder);
    }
    if let Some(reason) = &report.outage {
        output::error(&format!(
            "cachewfs: mounted, but {reason}. The mount shows what its cache has, and goes on trying"
        ));
    }
    on_ready(&report)?;
    let ended = mount.wait();
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return Ok(outcome?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
        _ = hangup.recv(), if !is_background() => {}
    }
    mount.unmount();
    Ok(ended.await?)
}

async fn start(options: MountOptions) -> Result<Mount> {
    match Mount::start(options).await {
        Ok(mount) => Ok(mount),
        Err(MountError::InUse { path }) => Err(already_mounted(&path).await.into()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the error for a mount point at which a mount is running.
async fn already_mounted(mount_point: &Path) -> CliError {
    let choice = MountChoice {
        mount: Some(mount_point.to_owned()),
    };
    let details = match choice.ask(&ControlRequest::Status).await {
        Ok(ControlAnswer::Status(status)) => {
            let daemons = status.daemons.join(", ");
            format!(" of {daemons} (process {})", status.pid)
        }
        Ok(_) => String::new(),
        // For example, it belongs to another user.
        Err(error) => format!(": {error:#}"),
    };
    CliError::AlreadyMounted {
        mount_point: mount_point.display().to_string(),
        details,
    }
}

/// Raises the number of files that this process may have open to the hard limit.
///
/// The soft limit is often 1024, for the sake of programs that use select(2). A mount has two files
/// open for each segment that it read lately.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // With the old limit, the mount closes files earlier.
    setrlimit(Resource::Nofile, raised).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<MountSettings, CliError> {
        let (point, options) = ("/mnt".into(), [options.to_owned()]);
        MountSettings::parse(Vec::new(), point, &options, UnknownOptions::Refused)
    }

    #[test]
    fn options_of_fstab_are_understood() {
        let settings = parse(
            "rw,noexec,defaults,_netdev,x-systemd.automount,allow_other,cache_dir=/c,cache_size=2G,\
             uid=1000,read_timeout=30,lookup_timeout=500ms,hydrate=hot,no_direct_reads",
        )
        .unwrap();

        let options = settings.options;
        assert!(options.allow_other && options.noexec);
        assert_eq!(options.owner.uid, 1000);
        assert_eq!(options.cache_dir, PathBuf::from("/c"));
        assert_eq!(options.cache_max_bytes, 2 << 30);
        assert_eq!(options.read_timeout, Duration::from_secs(30));
        assert_eq!(options.lookup_timeout, Duration::from_millis(500));
        assert_eq!(options.hydrate, Hydrate::Hot);
        assert!(!options.direct_reads && options.passthrough);
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_printing_it() {
        for url in [
            "http://user:hunter2@h:8080",
            "https://hunter2@h/path",
            "http://a,http://u:hunter2@b",
            "ftp://u:hunter2@h",
        ] {
            let error = daemon_urls(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(daemon_urls("http://h/a@b").is_ok());
    }

    #[test]
    fn an_unknown_option_or_value_is_refused() {
        for bad in [
            "alow_other",
            "cache_size=x",
            "cache_size=5X",
            "hydrate=no",
            "uid=alice",
            "read_timeout=z",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(!parse("noexec,exec").unwrap().options.noexec);
    }

    #[test]
    fn only_unknown_options_may_be_ignored() {
        let parse = |options: &str| {
            let (point, options) = ("/mnt".into(), [options.to_owned()]);
            MountSettings::parse(Vec::new(), point, &options, UnknownOptions::Ignored)
        };

        assert!(
            parse("alow_other,max_read=1,allow_other")
                .unwrap()
                .options
                .allow_other
        );
        assert!(parse("cache_size=x").is_err());
    }
}
