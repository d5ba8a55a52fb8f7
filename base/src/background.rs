//! Runs work on many bytes with a low priority, so that answers to clients get the processors
//! first.

use rustix::process::nice;
use tokio::runtime::Handle;

/// How much is added to the niceness of the daemon. If processor time is short, a thread with 10
/// more gets about a tenth of the time of one without.
const NICENESS: i32 = 10;

/// Runs `work` on a thread of its own with a low priority, and waits for its result. Blocks.
///
/// Threads that `work` starts inherit the priority. The thread belongs to the runtime of the
/// caller.
pub fn in_background<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let runtime = Handle::try_current().ok();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _runtime = runtime.as_ref().map(Handle::enter);
            // On Linux a niceness belongs to a thread, not to the process. A thread of its own is
            // needed, because an unprivileged thread can't lower its niceness again. If the call
            // fails, the work only runs with the normal priority.
            nice(NICENESS).ok();
            work()
        });
        let done = thread.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the niceness of the calling thread.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_background_work_has_a_low_priority() {
        // 19 is the highest niceness.
        let before = niceness();

        let inside = in_background(|| [niceness(), std::thread::spawn(niceness).join().unwrap()]);

        assert_eq!(inside, [(before + NICENESS).min(19); 2]);
        assert_eq!(niceness(), before);
    }
}
