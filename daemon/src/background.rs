//! Work on many bytes that can wait a little: it leaves the processors to who is waiting for an answer.

use rustix::process::setpriority_process;

/// How much nicer it is than the rest of the daemon: a tenth of its share of the processors' time if there is not
/// enough.
const NICENESS: i32 = 10;

/// Does `work` on a thread of its own that is nicer than others, as are those that it starts. Blocks.
pub(crate) fn in_background<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Linux has a niceness for each thread. Without, the work is done as well.
            setpriority_process(None, NICENESS).ok();
            work()
        });
        let done = thread.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_done_in_the_background_is_nicer_and_nothing_else() {
        let before = niceness();

        let inside = in_background(|| [niceness(), std::thread::spawn(niceness).join().unwrap()]);

        assert_eq!(inside, [before + NICENESS; 2]);
        assert_eq!(niceness(), before);
    }
}
