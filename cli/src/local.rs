//! The embedded daemon: the whole system on one machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
pub(crate) use cachewfs_daemon::Config;
use cachewfs_daemon::{Daemon, Running};

use crate::error::CliError;

/// A daemon that runs in this process.
#[derive(Debug)]
pub(crate) struct Embedded(Running);

/// The configuration of a daemon that keeps its data in `directory` and listens on a free port of
/// the loopback interface; `upstreams` are `HOST=URL`, beside the usual hosts.
pub(crate) fn config(directory: &Path, upstreams: &[String]) -> Result<Config> {
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: std::path::absolute(directory)?,
        ..Config::default()
    };
    for upstream in upstreams {
        let Some((host, url)) = upstream.split_once('=') else {
            let reason = "it is HOST=URL".to_owned();
            return Err(CliError::BadOption {
                option: upstream.clone(),
                reason,
            }
            .into());
        };
        config.upstreams.insert(host.to_owned(), url.to_owned());
    }
    config.check()?;
    Ok(config)
}

/// Starts a daemon.
pub(crate) async fn start(config: Config) -> Result<Embedded> {
    Ok(Embedded(Daemon::start(config).await?))
}

impl Embedded {
    /// The URL that it serves at.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Stops it, and waits until it has.
    pub(crate) async fn stop(self) {
        self.0.shutdown.cancel();
        self.0.stopped().await;
    }
}
