//! Reading the configuration file. Errors name the line (`explain.rs`).

use std::path::Path;

use serde::Deserialize as _;

use super::Config;
use super::explain::{explain, line_of};
use crate::base::ConfigError;

impl Config {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let in_file = |(line, source): (usize, ConfigError)| ConfigError::InFile {
            path: path.to_owned(),
            line,
            source: Box::new(source),
        };
        parse(&text).map_err(in_file)
    }
}

/// Parses and checks `text`. Returns an error with the number of its line.
fn parse(text: &str) -> Result<Config, (usize, ConfigError)> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| explain(text, &error))?;
    let mut config = Config::deserialize(deserializer).map_err(|error| explain(text, &error))?;
    config.derive();
    config.check().map_err(|error| {
        let line = match &error {
            ConfigError::Upstream { host, .. } => line_of(text, &format!("upstreams.{host}")),
            ConfigError::Value { key, .. } => {
                // If the key isn't in the file, because a required one is missing, its section is.
                let section = || line_of(text, key.rsplit_once('.')?.0);
                line_of(text, key).or_else(section)
            }
            _ => None,
        };
        (line.unwrap_or(1), error)
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain;

    fn explained(text: &str) -> (usize, String) {
        let (line, error) = parse(text).unwrap_err();
        (line, chain(&error))
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_advice() {
        for (text, line, advice) in [
            (
                "listne = '127.0.0.1:1'",
                1,
                "there is no key listne; did you mean listen?",
            ),
            (
                "\n# x\nfetch_intervall = '2m'",
                3,
                "there is no key fetch_intervall; did you mean fetch_interval?",
            ),
            (
                "[git]\nclone_timeuot = '3h'",
                2,
                "there is no key clone_timeuot; did you mean clone_timeout?",
            ),
            (
                "[git]\nlisten = '127.0.0.1:1'",
                2,
                "there is no key listen; it belongs before the first [section]",
            ),
            (
                "[upstreams]\n[git]\nmax_processes = 3",
                3,
                "there is no key max_processes; it belongs in [git_http]",
            ),
            (
                "[jobs]\nlfs = 'off'",
                2,
                "there is no key lfs; it belongs in [publish]",
            ),
            (
                "keep_snapshots = 3",
                1,
                "there is no key keep_snapshots; it is snapshots in [keep] now",
            ),
            (
                "[store.s3]\nbucket = 'bucket'\nmax_requests = 3",
                3,
                "there is no key max_requests; its value can't be changed any more",
            ),
            (
                "clone_timeout = '3h'",
                1,
                "there is no key clone_timeout; it belongs in [git]",
            ),
            ("colour = 'blue'", 1, "there is no key colour"),
        ] {
            assert_eq!(explained(text), (line, advice.to_owned()));
        }
    }

    #[test]
    fn errors_have_the_line_and_no_secrets() {
        for (text, line) in [
            ("listen = 'x'", 1),
            ("\n\nfetch_interval = 7", 3),
            ("\nfetch_interval = '7 parsecs'", 2),
            ("[jobs]\nupdates = 3\npublishes = 0", 3),
            ("[upstreams]\n'a.org' = 'https://a.org'\n'x' = [", 3),
            ("[upstreams]\n'a.org' = ['https://me:s3cret@a.org']", 2),
            ("\n[upstreams]\n'a.org' = 'ext::me:s3cret@a.org'", 3),
            ("[upstreams]\n'a.org' = 'https://me:s3cret@a.org' x", 2),
            ("log = 'xml'", 1),
            (
                "\n[store.s3]\nbucket = 'bucket'\nendpoint = 'https://me:s3cret@a.org'",
                4,
            ),
            ("\n[store.s3]\nprefix = 'x'", 2),
        ] {
            let (found, error) = explained(text);

            assert_eq!(found, line, "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
