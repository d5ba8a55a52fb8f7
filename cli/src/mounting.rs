//! From options to a mount that is served until it ends.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cachewfs_daemon::LogOutput;
use cachewfs_format::Colours;
use cachewfs_fuse::{Hydrate, Mount, MountOptions};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::daemonise::is_background;
use crate::error::CliError;
use crate::mounts::clear_dead_mount;
use crate::remote::without_secrets;

/// What `-o` can say.
#[derive(Debug)]
pub(crate) struct MountSettings {
    pub(crate) options: MountOptions,
    /// Where to log; standard error in the foreground, nowhere in the background, if absent.
    pub(crate) log: Option<PathBuf>,
}

/// Options of mount(8), fstab and systemd that mean nothing here, or what is the case anyway.
///
/// mount(8) says `rw` to its helpers whenever nobody said `ro`, so it can't be refused.
const IGNORED: [&str; 24] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "dev",
    "noexec",
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
    "exec",
];

/// Explains `-o` in `--help`.
pub(crate) const OPTIONS_HELP: &str = "\
Mount options (-o, separated by commas):
  allow_other          other users may look, too
  token_file=FILE      a file with the token that the daemon wants; use https:// [none]
  cache_dir=DIR        where chunks are kept [/var/cache/cachewfs, ~/.cache/cachewfs]
  cache_size=SIZE      disk that the cache may take, such as 50G [50G]
  read_timeout=TIME    how long a read waits before it fails, such as 60s [60s]
  lookup_timeout=TIME  how long a first lookup waits [5s]
  poll_interval=TIME   how often the daemon is asked for news [10s]
  hydrate=WHAT         what is fetched in the background: off, hot (all that a checkout needs) or
                       all [all]
  hydrate_rate=SIZE    bytes per second that this may take [no limit]
  no_direct_reads      ask daemons for everything, also where they point to the bucket behind them
  no_passthrough       don't let the kernel read complete files by itself
  log=FILE             where to log in the background [nowhere]
Options of fstab such as _netdev, nofail, noauto and x-systemd.* are accepted.";

impl MountSettings {
    /// MountSettings for a mount of `daemons` at `mount_point`, with `options` as in fstab.
    pub(crate) fn parse(
        daemons: Vec<String>,
        mount_point: PathBuf,
        options: &[String],
    ) -> Result<Self, CliError> {
        let mut settings = Self {
            options: MountOptions::new(mount_point, daemons),
            log: None,
        };
        for option in options.iter().flat_map(|list| list.split(',')) {
            settings.apply(option.trim())?;
        }
        Ok(settings)
    }

    fn apply(&mut self, option: &str) -> Result<(), CliError> {
        let bad = |reason: String| CliError::BadOption {
            option: option.to_owned(),
            reason,
        };
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let options = &mut self.options;
        match key {
            "" => {}
            "allow_other" => options.allow_other = true,
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
            "log" => self.log = Some(absolute(value)),
            _ if IGNORED.contains(&key) || key.starts_with("x-") || key == "comment" => {}
            _ => return Err(bad("there is no such option".to_owned())),
        }
        Ok(())
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

/// `512M`, `50G`, `1000`: bytes, in units of 1024.
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
        _ => return Err("a size is a number and K, M, G or T".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size starts with a number".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "it is too large".to_owned())
}

/// `60s`, `5m`, `500ms`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn hydrate(text: &str) -> Result<Hydrate, String> {
    match text {
        "off" => Ok(Hydrate::Off),
        "hot" => Ok(Hydrate::Hot),
        "all" => Ok(Hydrate::All),
        _ => Err("it is off, hot or all".to_owned()),
    }
}

/// Splits the source of a mount, one URL or several between commas, and checks them.
pub(crate) fn daemon_urls(source: &str) -> Result<Vec<String>, CliError> {
    source
        .split(',')
        .map(|url| {
            let url = url.trim();
            let option = without_secrets(url);
            let reason = if !url.starts_with("http://") && !url.starts_with("https://") {
                "a daemon's URL starts with http:// or https://"
            } else if option != url {
                "every user sees it in `ps` and in the mount table, so it may have no user or \
                 password: put the daemon's token in a file, and say -o token_file=FILE"
            } else {
                return Ok(url.to_owned());
            };
            let reason = reason.to_owned();
            Err(CliError::BadOption { option, reason })
        })
        .collect()
}

/// Logs to `log`, or to standard error.
pub(crate) fn start_logging(log: Option<&Path>) -> Result<()> {
    let filter = EnvFilter::try_from_env("CACHEWFS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
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
        .with_context(|| format!("can't log to {}", path.display()))?;
    let output = LogOutput::new(Mutex::new(file), Colours::Removed);
    builder.with_ansi(false).with_writer(output).init();
    Ok(())
}

/// Mounts, says so by `on_ready`, and serves until it is unmounted, by whomever, or until a signal
/// unmounts it: SIGINT, SIGTERM, and in the foreground SIGHUP. A process that ended without that would
/// leave a dead mount point.
pub(crate) async fn serve(
    options: MountOptions,
    on_ready: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // In the background it is ignored: no terminal of this process can close.
    let mut hangup = signal(SignalKind::hangup())?;
    // After a crash, mounting again has to be enough.
    clear_dead_mount(&options.mount_point)?;
    let mount = Mount::start(options).await?;
    on_ready()?;
    let ended = mount.wait();
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return Ok(outcome?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv(), if !is_background() => {}
    }
    mount.unmount();
    Ok(ended.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<MountSettings, CliError> {
        MountSettings::parse(Vec::new(), "/mnt".into(), &[options.to_owned()])
    }

    #[test]
    fn options_of_fstab_are_understood() {
        let settings = parse(
            "rw,defaults,_netdev,x-systemd.automount,allow_other,cache_dir=/c,cache_size=2G,\
             read_timeout=30,lookup_timeout=500ms,hydrate=hot,no_direct_reads",
        )
        .unwrap();

        let options = settings.options;
        assert!(options.allow_other);
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
            "read_timeout=z",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
