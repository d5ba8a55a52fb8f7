//! The configuration in force, which changes when the file is read again.

use std::sync::Arc;

use tokio::sync::watch;

use super::Config;

/// The configuration in force.
///
/// A request or job calls [`LiveConfig::now`] once, when it begins. So a reload never changes keys
/// in the middle of it.
#[derive(Debug)]
pub(crate) struct LiveConfig(watch::Sender<Arc<Config>>);

impl LiveConfig {
    pub(crate) fn new(config: Config) -> Self {
        Self(watch::Sender::new(Arc::new(config)))
    }

    pub(crate) fn now(&self) -> Arc<Config> {
        Arc::clone(&self.0.borrow())
    }

    /// Returns a receiver that wakes when another configuration comes into force.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Config>> {
        self.0.subscribe()
    }

    /// Puts `new` into force, except for the keys that need a restart. Returns those of them that
    /// differ.
    pub(crate) fn replace(&self, mut new: Config) -> Vec<&'static str> {
        let fixed = keep_fixed(&mut new, &self.now());
        self.0.send_replace(Arc::new(new));
        fixed
    }
}

/// Copies the keys that can't change while the daemon runs from `old` to `new`. Returns the names
/// of the keys that differed.
///
/// Most of these keys were used up at the start, for sockets, directories, semaphores and clients.
/// `mirrors.namespaces` is written into the mirrors.
fn keep_fixed(new: &mut Config, old: &Config) -> Vec<&'static str> {
    let mut differ = Vec::new();
    macro_rules! keep {
        ($($key:literal: $($field:ident).+;)*) => {$(
            if new.$($field).+ != old.$($field).+ {
                differ.push($key);
                new.$($field).+.clone_from(&old.$($field).+);
            }
        )*};
    }
    keep! {
        "listen": listen;
        "log": log;
        "data_dir": data_dir;
        "jobs.updates": jobs.updates;
        "jobs.updates_per_host": jobs.updates_per_host;
        "jobs.publishes": jobs.publishes;
        "mirrors.namespaces": mirrors.namespaces;
        "store.directory": store.directory;
        "store.disk_bytes": store.disk_bytes;
        "store.memory_bytes": store.memory_bytes;
        "store.delete_notice": store.delete_notice;
        "store.s3": store.s3;
        "tls": tls;
        "tracing": tracing;
        "auth": auth;
        "upstream_auth": upstream_auth;
        "git.config_file": git.config_file;
        "git_http.max_processes": git_http.max_processes;
        "git_http.max_passed_on": git_http.max_passed_on;
    }
    differ
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_that_need_a_restart_keep_their_value() {
        let live = LiveConfig::new(Config::default());
        let mut new = Config {
            fetch_interval: Duration::from_secs(3),
            ..Config::default()
        };
        new.git_http.max_processes = 1;
        new.jobs.publishes = 7;

        let differ = live.replace(new);

        assert_eq!(differ, ["jobs.publishes", "git_http.max_processes"]);
        let now = live.now();
        assert_eq!((now.jobs.publishes, now.git_http.max_processes), (2, 32));
        assert_eq!(now.fetch_interval, Duration::from_secs(3));
    }
}
