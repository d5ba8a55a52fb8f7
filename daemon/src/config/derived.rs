//! Values that follow from keys of the file.
//!
//! With the defaults of the keys they are the defaults of their fields. Somebody who mirrors very
//! large repositories or wants everything faster changes one key, and these follow.

use std::time::Duration;

use super::Config;

/// How many requests of git clients may be in flight for each `git upload-pack` process: the others
/// wait for a process or are passed on to upstream.
const REQUESTS_PER_PROCESS: usize = 16;

impl Config {
    /// Sets the fields that follow from keys. The reader of a file calls this once.
    pub(super) fn derive(&mut self) {
        let at_most = |limit: u64, other: Duration| Duration::from_secs(limit).min(other);
        self.publish.delay = at_most(1, self.fetch_interval / 60);
        self.mirrors.repack_interval = at_most(600, self.fetch_interval.saturating_mul(10));
        self.mirrors.retry_first = at_most(5, self.mirrors.retry_max / 10);

        // The pack of a clone is written by git for a publish, and read by a client of the daemon.
        // A publish may also have to find its deltas.
        self.git.pack_timeout = self.git.clone_timeout.saturating_mul(2);
        self.git.lfs_timeout = self.git.clone_timeout;
        self.git_http.answer_timeout = self.git.clone_timeout;
        self.git.ls_remote_timeout = at_most(60, self.git.fetch_timeout / 2);

        if let Some(s3) = &mut self.store.s3 {
            s3.connect_timeout = at_most(3, s3.timeout / 2);
        }
        self.git_http.max_requests =
            REQUESTS_PER_PROCESS.saturating_mul(self.git_http.max_processes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_follow_from_the_defaults_of_the_keys() {
        let mut derived = Config::default();

        derived.derive();

        assert_eq!(derived, Config::default());
    }
}
