//! Measures the calls of a day: of each step, the longest one and the limit for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a watcher pauses between two rounds.
const PAUSE: Duration = Duration::from_millis(20);

/// The calls of a day, by step.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Vec<Step>>);

#[derive(Debug)]
struct Step {
    name: &'static str,
    limit: Duration,
    count: u64,
    longest: Duration,
    what: String,
}

impl Calls {
    /// Begins a step in which no call may take longer than `limit`.
    pub(super) fn begin(&self, name: &'static str, limit: Duration) {
        self.steps().push(Step {
            name,
            limit,
            count: 0,
            longest: Duration::ZERO,
            what: String::new(),
        });
    }

    /// Makes a call, and counts it for the step in which it began.
    pub(super) fn time<T>(&self, what: &str, call: impl FnOnce() -> T) -> T {
        let step = self.steps().len() - 1;
        let started = Instant::now();
        let outcome = call();
        let took = started.elapsed();
        let step = &mut self.steps()[step];
        step.count += 1;
        if took > step.longest {
            step.longest = took;
            what.clone_into(&mut step.what);
        }
        outcome
    }

    /// Prints one table of all steps. Panics if a call took longer than its step allows.
    #[expect(clippy::print_stdout, reason = "a table to read")]
    pub(super) fn check(&self) {
        let steps = self.steps();
        println!(
            "| step | calls | longest | limit | the longest call |\n| --- | --- | --- | --- | --- |"
        );
        for step in &*steps {
            println!(
                "| {} | {} | {:.2?} | {:?} | {} |",
                step.name, step.count, step.longest, step.limit, step.what
            );
        }
        for step in &*steps {
            assert!(step.longest <= step.limit, "{step:?}");
        }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that uses a repository all day. It sees right bytes, and no error.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(calls: &Arc<Calls>, repo: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (calls, is_over) = (Arc::clone(calls), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let readme = fs::read(repo.join("README.md")).unwrap();
            let names = fs::read_dir(repo.join("src")).unwrap().count();
            for number in 0_u64.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let bytes = calls.time("read", || fs::read(repo.join("README.md")).unwrap());
                assert!(bytes == readme);
                let listing = || fs::read_dir(repo.join("src")).unwrap().count();
                assert_eq!(calls.time("listing", listing), names);
                let head = || fs::read(repo.join(".git/HEAD")).unwrap();
                assert_eq!(calls.time("read of HEAD", head), b"ref: refs/heads/main\n");
                // The kernel has never seen this name, so it asks the mount.
                let absent = repo.join(format!("absent-{number}"));
                assert!(!calls.time("lookup", || absent.exists()));
                std::thread::park_timeout(PAUSE);
            }
        });
        Self { stop, thread }
    }

    /// Ends the thread. Panics if it saw anything wrong.
    pub(super) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The beginning of what the command says when it mounts without a network.
const WARNING: &str = "cachewfs: mounted, but can't reach the daemon ";

/// Panics unless each line of a mount's log has one of the `allowed` levels and beginnings, or is
/// [`WARNING`].
pub(super) fn check_log(log: &str, allowed: &[(&str, &str)]) {
    let is_allowed = |line: &&str| {
        if line.starts_with(WARNING) {
            return true;
        }
        // `2026-11-30T16:42:44.262264Z  INFO cachewfs_fuse::mount: Mounted at …`
        let mut words = line.splitn(2, ' ');
        let rest = words.nth(1).unwrap_or_default().trim_start();
        let (level, rest) = rest.split_once(' ').unwrap_or_default();
        let (_, message) = rest.split_once(": ").unwrap_or_default();
        allowed
            .iter()
            .any(|&(allowed, start)| level == allowed && message.starts_with(start))
    };
    let others: Vec<_> = log.lines().filter(|line| !is_allowed(line)).collect();
    assert!(others.is_empty(), "not expected in the log: {others:#?}");
}

/// Panics unless the work trees are the same.
pub(super) fn assert_same_files(mounted: &Path, clone: &Path) {
    let differences = std::process::Command::new("diff")
        .args(["--recursive", "--no-dereference", "--exclude=.git"])
        .args([clone, mounted])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&differences.stdout);
    assert!(differences.status.success(), "{text}");
}
