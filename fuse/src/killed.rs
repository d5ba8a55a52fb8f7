//! Notices that the process that waits for an answer was killed.
//!
//! A killed process ends only once its call is answered. The kernel reports the kill with
//! `FUSE_INTERRUPT`, but fuser 0.18 refuses these requests. So a call that waits for the network
//! looks at the signals that are pending for its process.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

/// How often a waiting call looks. A person who pressed Ctrl-C waits for as long.
const INTERVAL: Duration = Duration::from_millis(100);

/// Returns once the thread `tid` was killed. Waits for ever if that can't be seen, for example
/// because the thread is in another PID namespace.
pub(crate) async fn killed(tid: u32) {
    loop {
        sleep(INTERVAL).await;
        // The kernel turns each signal that ends a process into SIGKILL for all of its threads.
        let status = tokio::fs::read_to_string(format!("/proc/{tid}/status")).await;
        if status.is_ok_and(|status| has_pending_kill(&status)) {
            return;
        }
    }
}

/// Returns whether SIGKILL is among the pending signals in a thread's `status`.
fn has_pending_kill(status: &str) -> bool {
    let kill = 1_u64 << (Signal::KILL.as_raw() - 1);
    let pending = status.lines().filter_map(|line| {
        let set = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    pending.fold(0, |all, set| all | set) & kill != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_kill_counts() {
        let status = |pending: &str| {
            format!(
                "Name:\tx\nSigPnd:\t{pending}\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000100\n"
            )
        };

        assert!(has_pending_kill(&status("0000000000000100")));
        assert!(has_pending_kill(&status("0000000000004102")));
        assert!(!has_pending_kill(&status("0000000000004002")));
        assert!(!has_pending_kill(""));
    }
}
