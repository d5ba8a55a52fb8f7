//! All keys of the configuration, with their defaults.
//!
//! Fields without a key (`#[serde(skip)]`) are values that no operator can judge. They are fields
//! so that tests can make them small. The value of a *constant* one is its default; a *derived* one
//! follows from keys (`derived.rs`).
//!
//! `packaging/cachewfsd.toml` documents them for operators. A test compares its keys and defaults
//! with these.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cachewfs_format::RepoName;
use serde::{Deserialize, Serialize};

use crate::auth::AuthConfig;
use crate::base::{DataDir, duration};
use crate::listener::TlsConfig;
use crate::mirror::{GitConfig, MirrorsConfig, UpstreamAuthConfig, UpstreamConfig};
use crate::store::{Keep, StoreConfig};
use crate::traces::TracingConfig;

/// The configuration: values from the file and the environment, and defaults for all other keys.
///
/// The defaults alone are enough to run on loopback. `Debug` and serializing hide the secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address and port to listen on; port 0 takes a free port. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The format of the log. Default `human`.
    pub log: LogFormat,
    /// How long the daemon goes on taking requests after a signal to stop, while `/readyz` answers
    /// 503 already. It should be the time that load balancers need to notice. Default `0s`.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long a client may take to send the head of a request, and how long a connection may be
    /// idle. Default `75s`.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// The directory with mirrors, published snapshots and temporary files. Default
    /// `/var/lib/cachewfs` for root, otherwise `$XDG_DATA_HOME/cachewfs` or
    /// `~/.local/share/cachewfs`.
    pub data_dir: DataDir,
    /// The upstream of each host in the names of repositories: a base URL (`https`, `http` or
    /// `file`), or a table with `url` and `ignore_case`. Requests for other hosts are refused.
    /// Default: github.com and gitlab.com.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// The time between two updates of a mirror from its upstream. Default `60s`.
    #[serde(with = "duration")]
    pub fetch_interval: Duration,
    /// How stale the refs in an answer to a git client may be. If the last check of upstream began
    /// longer ago, the daemon checks again before it answers. Default `10s`.
    #[serde(with = "duration")]
    pub ref_check_interval: Duration,
    /// Constant: how long a request waits for such a check. After that the daemon answers from the
    /// mirror and marks the answer as stale. If upstream is known to have moved, it passes the
    /// request on to upstream instead.
    #[serde(skip)]
    pub ref_check_timeout: Duration,
    /// Whether a range request for the stable URL may name an older snapshot in `If-Match`. If so,
    /// and the snapshot is still kept, the answer comes from it; otherwise the answer is 412. This
    /// is for clients that give up on a 412, if snapshots become current faster than they are
    /// downloaded. Default `true`.
    pub if_match_pins: bool,
    /// The number and age of snapshots that the store keeps.
    pub keep: Keep,
    /// The content of snapshots.
    pub publish: PublishConfig,
    /// How many jobs may run at once.
    pub jobs: JobsConfig,
    /// Limits and settings of the git processes.
    pub git: GitConfig,
    /// Limits on the requests of git clients.
    pub git_http: GitHttpConfig,
    /// Schedule and maintenance of mirrors.
    pub mirrors: MirrorsConfig,
    /// The place where published snapshots are kept.
    pub store: StoreConfig,
    /// Tokens and policy.
    pub auth: AuthConfig,
    /// The credentials for each upstream host. Default none.
    pub upstream_auth: BTreeMap<String, UpstreamAuthConfig>,
    /// Certificate and key for HTTPS. Without them, the daemon serves plain HTTP.
    pub tls: Option<TlsConfig>,
    /// The collector that traces go to.
    pub tracing: TracingConfig,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The repositories whose LFS archives are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LfsMode {
    /// None.
    Off,
    /// Repositories whose LFS archive a client has asked for.
    OnDemand,
    /// All repositories that keep files with Git LFS.
    Always,
}

impl Config {
    /// Returns the canonical spelling of `repo`: in lower case if its upstream ignores case.
    ///
    /// Every name in a URL goes through this when it is parsed. So a policy, the registry and the
    /// store never see two spellings of one repository.
    pub(crate) fn canonical(&self, repo: RepoName) -> RepoName {
        let host = repo.host();
        match self.upstreams.get(host) {
            Some(upstream) if upstream.ignores_case(host) => repo.to_lower_case(),
            _ => repo,
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
            data_dir: DataDir::default(),
            upstreams,
            fetch_interval: Duration::from_mins(1),
            ref_check_interval: Duration::from_secs(10),
            ref_check_timeout: Duration::from_secs(10),
            if_match_pins: true,
            keep: Keep::default(),
            publish: PublishConfig::default(),
            jobs: JobsConfig::default(),
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

/// The `[publish]` section: the content of snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishConfig {
    /// The repositories whose LFS archives are made. Default `on_demand`.
    pub lfs: LfsMode,
    /// How long commits that upstream dropped stay in the snapshots. Default `90days`.
    #[serde(with = "duration")]
    pub retain_orphans: Duration,
    /// Derived: how long the daemon waits between a periodic update that moved refs and the
    /// publish, so that several pushes make one snapshot.
    #[serde(skip)]
    pub delay: Duration,
    /// Constant: the share of increments in the bytes of all packs above which the publisher writes
    /// all packs anew.
    #[serde(skip)]
    pub relayout_share: f64,
    /// Constant: how many of the newest commits have their trees and blobs in a pack of their own.
    #[serde(skip)]
    pub tip_commits: u32,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            lfs: LfsMode::OnDemand,
            retain_orphans: Duration::from_hours(90 * 24),
            delay: Duration::from_secs(1),
            relayout_share: 0.10,
            tip_commits: 1000,
        }
    }
}

/// The `[jobs]` section: how many jobs may run at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsConfig {
    /// How many updates and clones of all hosts together may run at once; half of them may be
    /// clones. A host of which none runs gets one all the same. Default `32`.
    pub updates: usize,
    /// How many updates and clones of one upstream host may run at once; half of them may be
    /// clones. Default `8`.
    pub updates_per_host: usize,
    /// How many publishes may run at once. Default `2`.
    pub publishes: usize,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            updates: 32,
            updates_per_host: 8,
            publishes: 2,
        }
    }
}

/// The `[git_http]` section: limits on the requests of git clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitHttpConfig {
    /// How many `git upload-pack` processes may run at once. Default `32`.
    pub max_processes: usize,
    /// How many requests may be passed on to one upstream host at once. Default `64`.
    pub max_passed_on: usize,
    /// Derived: how many requests of git clients may be in flight.
    #[serde(skip)]
    pub max_requests: usize,
    /// Derived: how long an answer may take from beginning to end.
    #[serde(skip)]
    pub answer_timeout: Duration,
    /// Constant: the longest body of a request to `git-upload-pack`, in bytes after decompression.
    /// Pushes and other requests that are passed on without a look at the body have no such limit.
    #[serde(skip)]
    pub max_body_bytes: u64,
    /// Constant: how long such a body may take to arrive.
    #[serde(skip)]
    pub body_timeout: Duration,
    /// Constant: how long upstream may send nothing, or the client may take nothing, before the
    /// daemon breaks the answer off.
    #[serde(skip)]
    pub idle_timeout: Duration,
    /// Constant: how long connecting to upstream may take.
    #[serde(skip)]
    pub connect_timeout: Duration,
    /// Constant: how long a request waits for a permit before it is refused.
    #[serde(skip)]
    pub queue_timeout: Duration,
    /// Constant: the size of the file through which clients share one answer of upstream, in bytes
    /// for each answer: how far the slowest of them may fall behind.
    #[serde(skip)]
    pub spool_bytes: u64,
}

impl Default for GitHttpConfig {
    fn default() -> Self {
        Self {
            max_processes: 32,
            max_passed_on: 64,
            max_requests: 512,
            answer_timeout: Duration::from_hours(1),
            max_body_bytes: 100 << 20,
            body_timeout: Duration::from_mins(5),
            idle_timeout: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(10),
            queue_timeout: Duration::from_mins(2),
            spool_bytes: 1 << 30,
        }
    }
}
