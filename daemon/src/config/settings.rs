//! All keys of the configuration, with their defaults.
//!
//! `packaging/cachewfsd.toml` documents them for people; a test compares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cachewfs_format::RepoName;
use serde::{Deserialize, Serialize};

use super::{UpstreamConfig, duration};
use crate::auth::AuthConfig;
use crate::listener::TlsConfig;
use crate::mirror::UpstreamAuthConfig;

use crate::mirrors_config::MirrorsConfig;
use crate::store::{Keep, StoreConfig};
use crate::traces::TracingConfig;

/// What a person wrote, or the defaults: enough to run on loopback without any file. Can't be printed with
/// its secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to serve HTTP on; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// How the log is written. Default `human`.
    pub log: LogFormat,
    /// How long `/readyz` says 503 before a daemon that is told to stop stops to take requests: as long as
    /// load balancers take to notice. Default `0s`.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long a connection may take to send the head of a request, or be idle. Default `75s`.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Where mirrors, published snapshots and temporary files live. Default
    /// `/var/lib/cachewfs` for root, else `$XDG_DATA_HOME/cachewfs` or `~/.local/share/cachewfs`.
    pub data_dir: PathBuf,
    /// Host in the names of repositories to its upstream: the base URL (`https`, `http` or `file`), or a
    /// table with `ignore_case`, too. Other hosts are refused. Default: github.com and gitlab.com.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// How often each mirror asks its upstream for news. Default `60s`.
    #[serde(with = "duration")]
    pub fetch_interval: Duration,
    /// How old the answers to git clients may be: a check whether upstream has moved began no longer
    /// before the request. Default `10s`.
    #[serde(with = "duration")]
    pub ref_check_interval: Duration,
    /// How long a request waits for such a check. Then what the mirror has is served, marked as
    /// stale; or the request is passed on, if upstream is known to have moved. Default `10s`.
    #[serde(with = "duration")]
    pub ref_check_timeout: Duration,
    /// How long to wait, after a periodic update moved refs, for more to arrive before
    /// publishing. Default `1s`.
    #[serde(with = "duration")]
    pub publish_delay: Duration,
    /// How many snapshots of a repository keep their immutable URL; at least 1. Default `20`.
    pub keep_snapshots: usize,
    /// Whether a range of the stable URL with the `If-Match` of an older snapshot that is kept gets
    /// that one instead of 412: for clients to which 412 is fatal, where snapshots become current
    /// faster than they are downloaded. Default `true`.
    pub if_match_pins: bool,
    /// For how long a snapshot keeps its immutable URL after another became current, however many there
    /// are. Default `1day`.
    #[serde(with = "duration")]
    pub keep_age: Duration,
    /// How long a segment that no snapshot names is kept after it was stored, for publishes that are under
    /// way; after its last snapshot went, no longer. Default `1day`.
    #[serde(with = "duration")]
    pub delete_grace: Duration,
    /// How long commits that upstream dropped stay in the snapshots. Default `90days`.
    #[serde(with = "duration")]
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
    /// For which repositories LFS archives are made. Default `on_demand`.
    pub lfs: LfsMode,
    /// How git is run.
    pub git: GitConfig,
    /// How git clients are served.
    pub git_http: GitHttpConfig,
    /// How mirrors are kept.
    pub mirrors: MirrorsConfig,
    /// Where what is published is kept.
    pub store: StoreConfig,
    /// Who may do what.
    pub auth: AuthConfig,
    /// Host to the credentials that are shown to it. Default none.
    pub upstream_auth: BTreeMap<String, UpstreamAuthConfig>,
    /// Certificate and key for HTTPS; plain HTTP without.
    pub tls: Option<TlsConfig>,
    /// Where traces go.
    pub tracing: TracingConfig,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// For which repositories LFS archives are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LfsMode {
    /// For none.
    Off,
    /// For those whose LFS archive somebody has asked for.
    OnDemand,
    /// For all that keep files with Git LFS.
    Always,
}

/// The `[git]` section: how git is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitConfig {
    /// A git configuration file to include: credential helpers, proxies, certificates.
    /// The system's and the user's own are not read. Default none.
    pub config_file: Option<PathBuf>,
    /// Time limit of the first clone of a mirror, and of its first update. Default `1h`.
    #[serde(with = "duration")]
    pub clone_timeout: Duration,
    /// Time limit of an update. Default `5min`.
    #[serde(with = "duration")]
    pub fetch_timeout: Duration,
    /// Time limit of asking upstream for HEAD. Default `1min`.
    #[serde(with = "duration")]
    pub ls_remote_timeout: Duration,
    /// Time limit of each local command that a publish runs. Default `2h`.
    #[serde(with = "duration")]
    pub pack_timeout: Duration,
    /// Time limit of fetching LFS objects, 1 GiB of them at once. Default `1h`.
    #[serde(with = "duration")]
    pub lfs_timeout: Duration,
    /// Threads that look for deltas. Default: all cores, at most `4`.
    pub pack_threads: usize,
    /// Memory that each of these threads may use for its window, as git writes it.
    /// Default `256m`.
    pub pack_window_memory: String,
}

impl GitConfig {
    /// The same for the first update of a mirror, which may bring as much as a clone.
    pub(crate) fn of_first_update(&self) -> Self {
        Self {
            fetch_timeout: self.fetch_timeout.max(self.clone_timeout),
            ..self.clone()
        }
    }
}

impl Config {
    /// Returns the one spelling that `repo` has: in lower case, if its upstream ignores case. No
    /// other spelling gets beyond the check of a URL.
    pub(crate) fn canonical(&self, repo: RepoName) -> RepoName {
        let host = repo.host();
        match self.upstreams.get(host) {
            Some(upstream) if upstream.ignores_case(host) => repo.to_lower_case(),
            _ => repo,
        }
    }

    /// How much is kept of what isn't current.
    pub(crate) fn keep(&self) -> Keep {
        Keep {
            snapshots: self.keep_snapshots,
            age: self.keep_age,
            grace: self.delete_grace,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let upstreams = ["github.com", "gitlab.com"]
            .map(|host| (host.to_owned(), format!("https://{host}").into()))
            .into();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            log: LogFormat::Human,
            drain_delay: Duration::ZERO,
            head_timeout: Duration::from_secs(75),
            data_dir: default_data_dir(),
            upstreams,
            fetch_interval: Duration::from_mins(1),
            ref_check_interval: Duration::from_secs(10),
            ref_check_timeout: Duration::from_secs(10),
            publish_delay: Duration::from_secs(1),
            keep_snapshots: 20,
            if_match_pins: true,
            keep_age: Duration::from_hours(24),
            delete_grace: Duration::from_hours(24),
            retain_orphans: Duration::from_hours(90 * 24),
            relayout_share: 0.10,
            tip_commits: 1000,
            namespaces: Vec::new(),
            jobs_per_host: 8,
            publishes: 2,
            lfs: LfsMode::OnDemand,
            git: GitConfig::default(),
            git_http: GitHttpConfig::default(),
            mirrors: MirrorsConfig::default(),
            store: StoreConfig::default(),
            auth: AuthConfig::default(),
            upstream_auth: BTreeMap::new(),
            tls: None,
            tracing: TracingConfig::default(),
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
            lfs_timeout: Duration::from_hours(1),
            pack_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(4)),
            pack_window_memory: "256m".to_owned(),
        }
    }
}

/// The `[git_http]` section: how git clients are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitHttpConfig {
    /// Longest body of a request to `git-upload-pack`, after decompression. Pushes and other
    /// requests that are passed on as they come have no such limit. Default `104857600` (100 MiB).
    pub max_body_bytes: u64,
    /// How long such a body may take to arrive. Default `5min`.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long an answer may take from beginning to end. Default `1h`.
    #[serde(with = "duration")]
    pub answer_timeout: Duration,
    /// How long upstream may send nothing, or the client take nothing. Default `2min`.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long connecting to upstream may take. Default `10s`.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long a request waits for one of the turns below before it is refused. Default `2min`.
    #[serde(with = "duration")]
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
