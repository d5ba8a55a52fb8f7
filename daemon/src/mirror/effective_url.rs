//! The URL and the credentials that git would use for an upstream, for requests that the daemon
//! sends itself.

use std::time::Duration;

use reqwest::Url;

use super::{Git, GitError, Login, Upstream};

/// How long git may take to print a configuration value or to ask a credential helper.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the URL that git would use for `url`, without credentials, and the login that git would
/// send there. `url` is a URL of `upstream`. Blocks the thread.
///
/// The operator's git configuration may rewrite URLs (`url.<base>.insteadOf`). Fails if git
/// fails or the configured credentials can't be read.
pub(super) fn effective_url_and_login(
    git: &Git,
    upstream: &Upstream,
    url: &str,
) -> Result<(Url, Option<Login>), GitError> {
    let printed = git
        .command("ls-remote")
        .secrets(&upstream.git_secrets(git)?)
        .args(["--get-url", "--", url])
        .time_limit(TIMEOUT)
        .text()?;
    let command = || "ls-remote".to_owned();
    let mut url = Url::parse(&printed).map_err(|_| GitError::Pipe {
        command: command(),
        source: std::io::ErrorKind::InvalidData.into(),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Ok((url, None));
    }
    let login = login(git, upstream, &url)?;
    // A URL gets into errors and logs, so it must not hold a secret. The login goes into a header.
    url.set_username("").ok();
    url.set_password(None).ok();
    Ok((url, login))
}

fn login(git: &Git, upstream: &Upstream, url: &Url) -> Result<Option<Login>, GitError> {
    let filled = git
        .command("credential")
        .secrets(&upstream.git_secrets(git)?)
        .args(["fill"])
        .input(format!("url={url}\n\n"))
        .time_limit(TIMEOUT)
        .text();
    let printed = match filled {
        // git exits with an error if no helper has credentials: the request is anonymous then.
        Err(error) if error.exit_code().is_some() => return Ok(None),
        printed => printed?,
    };
    let value = |key: &str| {
        let mut pairs = printed.lines().filter_map(|line| line.split_once('='));
        pairs.find_map(|(found, value)| (found == key).then(|| value.to_owned()))
    };
    let pair = value("username").zip(value("password"));
    Ok(pair.map(|(user, secret)| Login { user, secret }))
}
