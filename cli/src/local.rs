//! The embedded daemon of `cachewfs mount --local`: daemon and mount in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
pub(crate) use cachewfs_daemon::Config;
use cachewfs_daemon::{Daemon, NewToken, Running};
use cachewfs_fuse::SecretToken;

use crate::error::CliError;

/// A daemon that runs in this process, and the token that every request to it needs.
#[derive(Debug)]
pub(crate) struct EmbeddedDaemon {
    running: Running,
    token: SecretToken,
}

/// Returns the configuration of a daemon that keeps its data in `directory` and listens on a free
/// port of the loopback interface. Each of `upstreams` is `HOST=URL`; it is added to the default
/// hosts, or replaces one of them.
pub(crate) fn config(directory: &Path, upstreams: &[String]) -> Result<Config> {
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: std::path::absolute(directory)?.into(),
        ..Config::default()
    };
    for upstream in upstreams {
        let Some((host, url)) = upstream.split_once('=') else {
            let reason = "an upstream is written as HOST=URL".to_owned();
            return Err(CliError::BadOption {
                option: upstream.clone(),
                reason,
            }
            .into());
        };
        config
            .upstreams
            .insert(host.to_owned(), url.to_owned().into());
    }
    let checked = config.check().map_err(|error| CliError::BadOption {
        option: upstreams.join(" "),
        reason: error.to_string(),
    });
    checked?;
    Ok(config)
}

/// Starts a daemon that answers only this process.
pub(crate) async fn start(config: Config) -> Result<EmbeddedDaemon> {
    // Other users of the machine reach the loopback address too, and so do web pages in a browser.
    // The token keeps them out. It is generated for this run, and stays in the memory of this
    // process.
    let token = NewToken::generate().context("the system has no random numbers")?;
    let running = Daemon::default().start_with_token(config, &token).await?;
    let token =
        SecretToken::new(token.secret()).context("the token doesn't fit in an HTTP header")?;
    Ok(EmbeddedDaemon { running, token })
}

impl EmbeddedDaemon {
    /// Returns the URL that the daemon serves at.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    pub(crate) fn token(&self) -> SecretToken {
        self.token.clone()
    }

    /// Stops the daemon, and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.running.shutdown.cancel();
        self.running.stopped().await;
    }
}
