//! One daemon of a source: its URL, and what earlier requests taught about it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::trust::Trust;

/// How long a daemon that was silent is asked after the others.
const LAST_FOR: Duration = Duration::from_secs(30);

/// A daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    /// The base URL, without a slash at the end.
    pub(super) url: String,
    /// The circuit breaker of its direct reads.
    pub(super) trust: Trust,
    /// Whether it is the only daemon of its mount.
    is_only: bool,
    /// Until when other daemons are asked first, or `None` if its last request was answered.
    last_until: Mutex<Option<Instant>>,
}

impl Daemon {
    /// Returns a daemon of a mount that has `count` of them.
    pub(super) fn new(url: &str, count: usize) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            is_only: count == 1,
            trust: Trust::default(),
            last_until: Mutex::default(),
        }
    }

    /// Notes that a request was not answered for seconds, while others may have been.
    pub(super) fn note_silence(&self) {
        let url = &self.url;
        let before = self.last_until.lock().replace(Instant::now() + LAST_FOR);
        if before.is_none() && !self.is_only {
            info!(daemon = url, "{url} is silent: asking other daemons first");
        }
    }

    pub(super) fn note_answer(&self) {
        *self.last_until.lock() = None;
    }

    /// Returns whether other daemons are asked first. When the time is over, that ends for one
    /// caller in [`LAST_FOR`] only: as long as the daemon is silent, it costs that caller seconds.
    fn goes_last(&self) -> bool {
        let mut until = self.last_until.lock();
        let now = Instant::now();
        match *until {
            None => false,
            Some(at) if now < at => true,
            Some(_) => {
                *until = Some(now + LAST_FOR);
                false
            }
        }
    }
}

/// Returns the daemons in the order to ask them, for a request that failed `attempt` times: number
/// `attempt` first, and those that were silent last.
pub(super) fn in_order(daemons: &[Arc<Daemon>], attempt: usize) -> Vec<Arc<Daemon>> {
    let mut order = daemons.to_vec();
    if order.len() > 1 {
        order.rotate_left(attempt % daemons.len());
        // Asks each daemon once, as `goes_last` requires.
        order.sort_by_cached_key(|daemon| daemon.goes_last());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_daemon_goes_last_and_one_request_in_a_while_tries_it() {
        let daemons = ["a", "b", "c"].map(|url| Arc::new(Daemon::new(url, 3)));
        let order = |attempt| {
            let order = in_order(&daemons, attempt);
            order
                .iter()
                .map(|daemon| daemon.url.clone())
                .collect::<String>()
        };
        assert_eq!((order(0), order(4)), ("abc".into(), "bca".into()));

        daemons[0].note_silence();
        assert_eq!((order(0), order(1)), ("bca".into(), "bca".into()));

        *daemons[0].last_until.lock() = Some(Instant::now());
        assert_eq!((order(0), order(0)), ("abc".into(), "bca".into()));

        daemons[0].note_answer();
        assert_eq!(order(0), "abc");
    }
}
