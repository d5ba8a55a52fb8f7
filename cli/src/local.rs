//! The embedded daemon: the whole system on one machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
pub(crate) use cachewfs_daemon::Config;
use cachewfs_daemon::{Daemon, NewToken, Running};
use cachewfs_fuse::SecretToken;

use crate::error::CliError;

/// A daemon that runs in this process, and the token without which it answers nobody.
#[derive(Debug)]
pub(crate) struct Embedded {
    running: Running,
    token: SecretToken,
}

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
        config
            .upstreams
            .insert(host.to_owned(), url.to_owned().into());
    }
    config.check()?;
    Ok(config)
}

/// Starts a daemon that answers this process alone: other users of the machine, and web pages in their
/// browsers, reach its address too. Its token is made for this run, and is nowhere but in memory.
pub(crate) async fn start(config: Config) -> Result<Embedded> {
    let token = NewToken::generate().context("there are no random numbers")?;
    let running = Daemon::start_with_token(config, &token).await?;
    let token = SecretToken::new(token.secret()).context("the token can't be sent")?;
    Ok(Embedded { running, token })
}

impl Embedded {
    /// The URL that it serves at.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// The token that it wants to see.
    pub(crate) fn token(&self) -> SecretToken {
        self.token.clone()
    }

    /// Stops it, and waits until it has.
    pub(crate) async fn stop(self) {
        self.running.shutdown.cancel();
        self.running.stopped().await;
    }
}
