//! Refuses configured values that the daemon can't work with.

use std::time::Duration;

use cachewfs_format::{RepoName, is_ref_name};

use super::Config;
use crate::base::ConfigError;

/// The shortest time between two updates of a mirror: with less, the daemon would ask upstream
/// without a pause.
const MIN_FETCH_INTERVAL: Duration = Duration::from_millis(10);

impl Config {
    /// Returns an error for the first key whose value can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_upstreams()?;
        if self.data_dir.path().as_os_str().is_empty() {
            let (value, reason) = (String::new(), "it must be the path of a directory");
            let key = "data_dir";
            return Err(ConfigError::Value { key, value, reason });
        }
        for namespace in &self.mirrors.namespaces {
            let is_good = namespace.starts_with("refs/")
                // All of `refs/` would have the daemon's own refs in it: a fetch would prune them.
                && namespace != "refs/"
                && !namespace.starts_with("refs/cachewfs/")
                && namespace.ends_with('/')
                && is_ref_name(format!("{namespace}x").as_bytes())
                && namespace
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
            if !is_good {
                return Err(ConfigError::Value {
                    key: "mirrors.namespaces",
                    value: namespace.clone(),
                    reason: "it must be refs/<name>/, and not refs/cachewfs/",
                });
            }
        }
        let counts = [
            ("keep.snapshots", self.keep.snapshots >= 1),
            ("jobs.updates", self.jobs.updates >= 1),
            ("jobs.updates_per_host", self.jobs.updates_per_host >= 1),
            ("jobs.publishes", self.jobs.publishes >= 1),
            ("git_http.max_processes", self.git_http.max_processes >= 1),
            ("git_http.max_passed_on", self.git_http.max_passed_on >= 1),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, is_good)| !is_good) {
            let (value, reason) = (String::from("0"), "it must be at least 1");
            return Err(ConfigError::Value { key, value, reason });
        }
        let durations = [
            ("head_timeout", self.head_timeout),
            ("mirrors.retry_max", self.mirrors.retry_max),
            ("git.clone_timeout", self.git.clone_timeout),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, time)| time.is_zero()) {
            let (value, reason) = (String::from("0s"), "it must be longer than 0s");
            return Err(ConfigError::Value { key, value, reason });
        }
        if self.fetch_interval < MIN_FETCH_INTERVAL {
            return Err(ConfigError::Value {
                key: "fetch_interval",
                value: humantime::format_duration(self.fetch_interval).to_string(),
                reason: "it must be at least 10ms",
            });
        }
        self.tracing.check()?;
        self.store.check()
    }

    fn check_upstreams(&self) -> Result<(), ConfigError> {
        for (host, base) in &self.upstreams {
            let schemes = ["https://", "http://", "file:///"];
            let reason = if RepoName::check_host(host).is_err() {
                "the key must be the name of a host, such as \"github.com\""
            } else if !schemes.iter().any(|scheme| base.url().starts_with(scheme)) {
                "its base URL must start with https://, http:// or file:///"
            } else if !base.has_good_url() {
                "its base URL is malformed; write it as https://HOST or https://HOST/PATH"
            } else if !base.has_good_login() {
                "the credentials in its URL must not have control characters"
            } else {
                continue;
            };
            let host = host.clone();
            return Err(ConfigError::Upstream { host, reason });
        }
        Ok(())
    }
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
        assert_eq!(config.upstreams["github.com"].url(), "https://github.com");
    }

    #[test]
    fn durations_have_units() {
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
            "upstreams = { 'x.org' = 'https://' }",
            "upstreams = { 'x.org' = 'https://git hub.com' }",
            "data_dir = ''",
            "upstreams = { 'x.org' = 'https://a:b%0Ac@x.org' }",
            "mirrors.namespaces = ['refs/*']",
            "mirrors.namespaces = ['refs/']",
            "mirrors.namespaces = ['refs/a..b/']",
            "mirrors.namespaces = ['refs/cachewfs/x/']",
            "mirrors.retry_max = '0s'",
            "keep.snapshots = 0",
            "fetch_interval = '5ms'",
            "[jobs]\nupdates_per_host = 0",
            "[git_http]\nmax_processes = 0",
            "[git]\nclone_timeout = '0s'",
            "[store]\nlease_ttl = '10ms'",
            "[store]\nlease_ttl = '2h'",
            "[store.s3]\nprefix = 'x'",
            "[store.s3]\nbucket = 'a bucket'",
            "[store.s3]\nbucket = 'bucket'\nprefix = '../x'",
            "[store.s3]\nbucket = 'bucket'\nendpoint = 'ftp://x'",
            "[store.s3]\nbucket = 'bucket'\ntimeout = '0s'",
            "[store.s3]\nbucket = 'bucket'\npublic_endpoint = 'https://me:secret@x'",
            "[store.s3]\nbucket = 'bucket'\ndirect_reads_ttl = '0s'",
            "[store.s3]\nbucket = 'bucket'\ndirect_reads_ttl = '8days'",
        ] {
            assert!(parse(bad).unwrap().check().is_err(), "{bad} was accepted");
        }
    }
}
