//! The daemon's configuration: one TOML file, every key with a default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_format::RepoName;
use serde::{Deserialize, Deserializer};

use crate::mirrors_config::MirrorsConfig;

/// What a person wrote, or the defaults: enough to run on loopback without any file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to serve HTTP on; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Where mirrors, published snapshots and temporary files live. Default
    /// `/var/lib/cachewfs` for root, else `$XDG_DATA_HOME/cachewfs` or `~/.local/share/cachewfs`.
    pub data_dir: PathBuf,
    /// Host in the names of repositories to the base URL of its upstream (`https`, `http` or
    /// `file`). Other hosts are refused. Default: github.com and gitlab.com.
    pub upstreams: BTreeMap<String, String>,
    /// How often each mirror asks its upstream for news. Default `60s`.
    #[serde(deserialize_with = "duration")]
    pub fetch_interval: Duration,
    /// How old the answers to git clients may be: a check whether upstream has moved began no longer
    /// before the request. Default `10s`.
    #[serde(deserialize_with = "duration")]
    pub ref_check_interval: Duration,
    /// How long a request waits for such a check. Then what the mirror has is served, marked as
    /// stale; or the request is passed on, if upstream is known to have moved. Default `10s`.
    #[serde(deserialize_with = "duration")]
    pub ref_check_timeout: Duration,
    /// How long to wait, after a periodic update moved refs, for more to arrive before
    /// publishing. Default `1s`.
    #[serde(deserialize_with = "duration")]
    pub publish_delay: Duration,
    /// How many snapshots of a repository keep their immutable URL; at least 1. Default `20`.
    pub keep_snapshots: usize,
    /// Whether a range of the stable URL with the `If-Match` of an older snapshot that is kept gets
    /// that one instead of 412: for clients to which 412 is fatal, where snapshots become current
    /// faster than they are downloaded. Default `false`.
    pub if_match_pins: bool,
    /// How long what a snapshot doesn't name any more is kept for readers that are under way.
    /// Default `1day`.
    #[serde(deserialize_with = "duration")]
    pub delete_grace: Duration,
    /// How long commits that upstream dropped stay in the snapshots. Default `90days`.
    #[serde(deserialize_with = "duration")]
    pub retain_orphans: Duration,
    /// The packs are laid out anew when the increments are more than this share of their bytes.
    /// Default `0.10`.
    pub relayout_share: f64,
    /// How many of the newest commits have their git trees and git blobs in a pack of their own.
    /// Default `1000`.
    pub tip_commits: u32,
    /// Namespaces of refs to mirror beside heads and tags, such as `refs/notes/`. Default none.
    pub namespaces: Vec<String>,
    /// How many updates may run at once for one upstream host, and half as many clones.
    /// Default `8`.
    pub jobs_per_host: usize,
    /// How many publishes may run at once. Default `2`.
    pub publishes: usize,
    /// How git is run.
    pub git: GitConfig,
    /// How git clients are served.
    pub git_http: GitHttpConfig,
    /// How mirrors are kept.
    pub mirrors: MirrorsConfig,
}

/// The `[git]` section: how git is run.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitConfig {
    /// A git configuration file to include: credential helpers, proxies, certificates.
    /// The system's and the user's own are not read. Default none.
    pub config_file: Option<PathBuf>,
    /// Time limit of the first clone of a mirror. Default `1h`.
    #[serde(deserialize_with = "duration")]
    pub clone_timeout: Duration,
    /// Time limit of an update. Default `5min`.
    #[serde(deserialize_with = "duration")]
    pub fetch_timeout: Duration,
    /// Time limit of asking upstream for HEAD. Default `1min`.
    #[serde(deserialize_with = "duration")]
    pub ls_remote_timeout: Duration,
    /// Time limit of each local command that a publish runs. Default `2h`.
    #[serde(deserialize_with = "duration")]
    pub pack_timeout: Duration,
    /// Threads that look for deltas. Default: all cores, at most `4`.
    pub pack_threads: usize,
    /// Memory that each of these threads may use for its window, as git writes it.
    /// Default `256m`.
    pub pack_window_memory: String,
}

impl Default for Config {
    fn default() -> Self {
        let upstreams = ["github.com", "gitlab.com"]
            .map(|host| (host.to_owned(), format!("https://{host}")))
            .into();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: default_data_dir(),
            upstreams,
            fetch_interval: Duration::from_mins(1),
            ref_check_interval: Duration::from_secs(10),
            ref_check_timeout: Duration::from_secs(10),
            publish_delay: Duration::from_secs(1),
            keep_snapshots: 20,
            if_match_pins: false,
            delete_grace: Duration::from_hours(24),
            retain_orphans: Duration::from_hours(90 * 24),
            relayout_share: 0.10,
            tip_commits: 1000,
            namespaces: Vec::new(),
            jobs_per_host: 8,
            publishes: 2,
            git: GitConfig::default(),
            git_http: GitHttpConfig::default(),
            mirrors: MirrorsConfig::default(),
        }
    }
}

impl Default for GitConfig {
    fn default() -> Self {
        Self {
            config_file: None,
            clone_timeout: Duration::from_hours(1),
            fetch_timeout: Duration::from_mins(5),
            ls_remote_timeout: Duration::from_mins(1),
            pack_timeout: Duration::from_hours(2),
            pack_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(4)),
            pack_window_memory: "256m".to_owned(),
        }
    }
}

/// The `[git_http]` section: how git clients are served.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitHttpConfig {
    /// Longest body of a request to `git-upload-pack`, after decompression. Pushes and other
    /// requests that are passed on as they come have no such limit. Default `104857600` (100 MiB).
    pub max_body_bytes: u64,
    /// How long such a body may take to arrive. Default `5min`.
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Duration,
    /// How long an answer may take from beginning to end. Default `1h`.
    #[serde(deserialize_with = "duration")]
    pub answer_timeout: Duration,
    /// How long upstream may send nothing, or the client take nothing. Default `2min`.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How long connecting to upstream may take. Default `10s`.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// How long a request waits for one of the turns below before it is refused. Default `2min`.
    #[serde(deserialize_with = "duration")]
    pub queue_timeout: Duration,
    /// How many requests of git clients may be under way. Default `512`.
    pub max_requests: usize,
    /// How many `git upload-pack` may run at once. Default `32`.
    pub max_processes: usize,
    /// How many requests may be passed on to one upstream host at once. Default `64`.
    pub max_passed_on: usize,
    /// How far the slowest of the clients that share an answer of upstream's may fall behind, on
    /// disk and per answer. Default `1073741824` (1 GiB).
    pub spool_bytes: u64,
}

impl Default for GitHttpConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 100 << 20,
            body_timeout: Duration::from_mins(5),
            answer_timeout: Duration::from_hours(1),
            idle_timeout: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(10),
            queue_timeout: Duration::from_mins(2),
            max_requests: 512,
            max_processes: 32,
            max_passed_on: 64,
            spool_bytes: 1 << 30,
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys that there are not.
    #[error("the configuration {path} is not understood")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value can't be used.
    #[error("{key} = {value:?} can't be used: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, without credentials.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Config {
    /// Reads the file at `path` and checks it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (host, base) in &self.upstreams {
            RepoName::check_host(host).map_err(|_| ConfigError::Value {
                key: "upstreams",
                value: host.clone(),
                reason: "the key must be the name of a host",
            })?;
            if !["https://", "http://", "file:///"]
                .iter()
                .any(|scheme| base.starts_with(scheme))
            {
                return Err(ConfigError::Value {
                    key: "upstreams",
                    value: crate::mirror::redact(base),
                    reason: "a base URL starts with https://, http:// or file:///",
                });
            }
        }
        for namespace in &self.namespaces {
            let is_good = namespace.starts_with("refs/")
                && namespace.ends_with('/')
                && !namespace.starts_with("refs/cachewfs/")
                && namespace
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
            if !is_good {
                return Err(ConfigError::Value {
                    key: "namespaces",
                    value: namespace.clone(),
                    reason: "a namespace is refs/<name>/",
                });
            }
        }
        let checks = [
            ("keep_snapshots", self.keep_snapshots >= 1),
            ("tip_commits", self.tip_commits >= 1),
            ("jobs_per_host", self.jobs_per_host >= 1),
            ("publishes", self.publishes >= 1),
            ("git_http.max_body_bytes", self.git_http.max_body_bytes >= 1),
            (
                "git_http.body_timeout",
                !self.git_http.body_timeout.is_zero(),
            ),
            (
                "git_http.answer_timeout",
                !self.git_http.answer_timeout.is_zero(),
            ),
            (
                "git_http.idle_timeout",
                !self.git_http.idle_timeout.is_zero(),
            ),
            ("mirrors.repack_packs", self.mirrors.repack_packs >= 1),
            ("mirrors.jobs", self.mirrors.jobs >= 1),
            ("mirrors.retry_first", !self.mirrors.retry_first.is_zero()),
            ("git_http.max_requests", self.git_http.max_requests >= 1),
            ("git_http.max_processes", self.git_http.max_processes >= 1),
            ("git_http.max_passed_on", self.git_http.max_passed_on >= 1),
            (
                "fetch_interval",
                self.fetch_interval >= Duration::from_millis(10),
            ),
        ];
        if let Some((key, _)) = checks.into_iter().find(|(_, is_good)| !is_good) {
            let (value, reason) = (String::from("0"), "it must be positive");
            return Err(ConfigError::Value { key, value, reason });
        }
        if (0.0..=1.0).contains(&self.relayout_share) {
            Ok(())
        } else {
            Err(ConfigError::Value {
                key: "relayout_share",
                value: self.relayout_share.to_string(),
                reason: "it must be between 0 and 1",
            })
        }
    }
}

fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/cachewfs".into();
    }
    let home = || {
        std::env::home_dir()
            .unwrap_or_default()
            .join(".local/share")
    };
    std::env::var_os("XDG_DATA_HOME")
        .map_or_else(home, PathBuf::from)
        .join("cachewfs")
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = parse("").unwrap();

        config.check().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.upstreams["github.com"], "https://github.com");
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(parse("listne = '127.0.0.1:1'").is_err());
        assert!(parse("[git]\nthreads = 3").is_err());
    }

    #[test]
    fn durations_are_written_for_people() {
        let config =
            parse("fetch_interval = '2m'\nref_check_interval = '0s'\n[git]\nclone_timeout = '3h'");
        let config = config.unwrap();

        assert_eq!(config.fetch_interval, Duration::from_mins(2));
        assert_eq!(config.ref_check_interval, Duration::ZERO);
        assert_eq!(config.git.clone_timeout, Duration::from_hours(3));
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        for bad in [
            "upstreams = { 'x/y' = 'https://x' }",
            "upstreams = { 'x.org' = 'ext::sh' }",
            "relayout_share = 3.0",
            "namespaces = ['refs/*']",
            "keep_snapshots = 0",
            "[git_http]\nmax_requests = 0",
            "[git_http]\nidle_timeout = '0s'",
        ] {
            assert!(parse(bad).unwrap().check().is_err(), "{bad} was accepted");
        }
    }
}
