//! Secrets from the environment, so that the configuration file needs none.
//!
//! - `CACHEWFSD_UPSTREAM_<HOST>_URL` replaces the base URL of a configured host.
//! - `CACHEWFSD_UPSTREAM_<HOST>_TOKEN` sets a token for that host.
//!
//! `<HOST>` is the host in capitals, with `_` for every character that is neither a letter nor a
//! digit: `CACHEWFSD_UPSTREAM_GITHUB_COM_TOKEN`.
//!
//! The standard variables of OpenTelemetry set where traces go and the headers that are sent with
//! them (`traces/config.rs`).

use std::ffi::OsString;

use super::Config;
use crate::base::ConfigError;
use crate::mirror::Login;
use crate::traces::TracingConfig;

const PREFIX: &str = "CACHEWFSD_UPSTREAM_";
/// The user name that is sent with a token. Servers only check the token; GitHub's own tools send
/// this name.
const TOKEN_USER: &str = "x-access-token";

impl Config {
    /// Applies the overrides among `variables`, then checks the whole configuration.
    ///
    /// A variable that begins with `CACHEWFSD_UPSTREAM_` but is unknown is an error: it is probably
    /// misspelt, and its secret would be missing. All other variables are ignored.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut overrides: Vec<(String, String)> = Vec::new();
        let mut for_traces = Vec::new();
        for (variable, value) in variables {
            let is_ours =
                |name: &&str| name.starts_with(PREFIX) || TracingConfig::is_variable(name);
            let Some(variable) = variable.to_str().filter(is_ours) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| refuse(variable, "its value is not UTF-8"))?;
            let list = if TracingConfig::is_variable(variable) {
                &mut for_traces
            } else {
                &mut overrides
            };
            list.push((variable.to_owned(), value));
        }
        self.tracing.apply(&for_traces)?;
        // In descending order, ..._URL comes before ..._TOKEN. A URL replaces the credentials, so
        // it must be set before the token.
        overrides.sort_by(|left, right| right.cmp(left));
        for (variable, value) in overrides {
            self.override_upstream(&variable, value)?;
        }
        self.check()?;
        Ok(self)
    }

    fn override_upstream(&mut self, variable: &str, value: String) -> Result<(), ConfigError> {
        let name = variable.strip_prefix(PREFIX).unwrap_or_default();
        let (host, is_token) = match (name.strip_suffix("_URL"), name.strip_suffix("_TOKEN")) {
            (Some(host), _) => (host, false),
            (_, Some(host)) => (host, true),
            _ => return Err(refuse(variable, "it must end with _URL or _TOKEN")),
        };
        let mut bases = self.upstreams.iter_mut();
        let mut bases = bases
            .by_ref()
            .filter(|(key, _)| spelling_in_variable(key) == host);
        let reason = "its host is not in [upstreams]";
        let (_, base) = bases.next().ok_or_else(|| refuse(variable, reason))?;
        if bases.next().is_some() {
            return Err(refuse(
                variable,
                "several hosts in [upstreams] have this spelling in a variable",
            ));
        }
        if !is_token {
            base.set_url(value);
            return Ok(());
        }
        let login = Login {
            user: TOKEN_USER.to_owned(),
            secret: value.trim().to_owned(),
        };
        let reason = "the upstream's URL has no host to send a token to";
        base.set_login(login)
            .ok_or_else(|| refuse(variable, reason))
    }
}

fn refuse(variable: &str, reason: &'static str) -> ConfigError {
    let variable = variable.to_owned();
    ConfigError::Environment { variable, reason }
}

/// Returns `host` as it is spelt in the name of a variable.
fn spelling_in_variable(host: &str) -> String {
    let letter = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
        _ => '_',
    };
    host.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain;

    fn config_with(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        let config = Config::default().with_environment(variables);
        config.map_err(|error| chain(&error))
    }

    #[test]
    fn urls_and_tokens_come_from_the_environment() {
        let config = config_with(&[
            ("PATH", "/bin"),
            ("CACHEWFSD_UPSTREAM_GITHUB_COM_TOKEN", "gh/p\n"),
            ("CACHEWFSD_UPSTREAM_GITLAB_COM_TOKEN", "abc"),
            (
                "CACHEWFSD_UPSTREAM_GITLAB_COM_URL",
                "https://gitlab.example.com/x",
            ),
        ])
        .unwrap();

        for (host, url, secret) in [
            ("github.com", "https://github.com", "gh/p"),
            ("gitlab.com", "https://gitlab.example.com/x", "abc"),
        ] {
            let upstream = &config.upstreams[host];
            let login = upstream.login().unwrap();
            assert_eq!(upstream.url(), url);
            assert_eq!((&*login.user, &*login.secret), (TOKEN_USER, secret));
        }
    }

    #[test]
    fn unknown_variables_are_refused_and_their_values_are_not_shown() {
        for (variable, value) in [
            ("CACHEWFSD_UPSTREAM_EXAMPLE_COM_URL", "https://s3cret"),
            ("CACHEWFSD_UPSTREAM_GITHUB_COM_TOKNE", "s3cret"),
            ("CACHEWFSD_UPSTREAM_GITHUB_COM_URL", "ext::me:s3cret@x"),
        ] {
            let error = config_with(&[(variable, value)]).unwrap_err();

            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
