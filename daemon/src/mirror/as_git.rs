//! Requests of the daemon's own to upstream, as git would send them: to which URL, with which credentials.

use std::time::Duration;

use reqwest::Url;

use super::{Git, GitError, Login, Upstream};

/// How long git may take to print a value of its configuration, or to ask a credential helper.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns the URL that git makes of `url`, one of upstream's, without credentials; and the user and password
/// that git shows there, from whichever helper. Blocks the thread.
///
/// The operator's git configuration may rewrite URLs (`url.<base>.insteadOf`). Fails if a helper can't be
/// asked.
pub(super) fn as_git(
    git: &Git,
    upstream: &Upstream,
    url: &str,
) -> Result<(Url, Option<Login>), GitError> {
    let printed = git
        .command("ls-remote")
        .secrets(&upstream.git_secrets(git)?)
        .args(["--get-url", "--", url])
        .time_limit(LIMIT)
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
    // The header has the credentials: a URL gets into errors.
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
        .time_limit(LIMIT)
        .text();
    let printed = match filled {
        // There are none.
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
