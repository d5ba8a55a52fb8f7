//! Measures bytes, requests and times over a slow link, and those of git itself for comparison.
//!
//! ```text
//! cargo build --release --bins
//! cargo bench -p cachewfs-tests --bench slow_link -- REPOSITORY [FILE]
//! ```
//!
//! `REPOSITORY` is a repository on this machine; it is not changed. `FILE` is a file in its HEAD,
//! for `git blame` [README.md]. Needs root and /dev/fuse.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement that can't be made has to fail"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, GitDaemon, Link, MountProcess, Site, bytes_below, can_mount, git, wait_until,
};

/// The bandwidth of the link: 200 Mbit/s.
const BYTES_PER_SECOND: u64 = 25_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);

fn main() {
    // `cargo bench` adds options of its own.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let Some(repository) = arguments.first() else {
        print("usage: cargo bench -p cachewfs-tests --bench slow_link -- REPOSITORY [FILE]");
        return;
    };
    if !can_mount() {
        return;
    }
    let file = arguments.get(1).map_or("README.md", String::as_str);
    let bench = Bench::set_up(Path::new(repository), file);
    bench.cold_commands();
    bench.git_itself();
    bench.one_commit_later();
    bench.read_cached();
}

fn print(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A daemon with a published snapshot, git's own server, and a slow link to each.
struct Bench {
    site: Site,
    _daemon: DaemonProcess,
    _git_daemon: GitDaemon,
    link: Link,
    git_link: Link,
    file: String,
    archive_bytes: u64,
}

impl Bench {
    fn set_up(repository: &Path, file: &str) -> Self {
        let site = Site::default();
        std::fs::create_dir_all(site.upstreams()).unwrap();
        let repository = repository.canonicalize().unwrap().display().to_string();
        // A copy that borrows its objects: the benchmark pushes to it, and must not change the
        // original.
        git(
            site.upstreams(),
            &["clone", "-q", "--mirror", "--shared", &repository, "bench"],
        );
        let daemon = site.daemon();
        let git_daemon = GitDaemon::start(&site.upstreams());
        let start = |target| Link::start(target, BYTES_PER_SECOND, ROUND_TRIP);
        let link = start(daemon.address());
        let git_link = start(git_daemon.address());
        let mount = site.mount(&daemon.url());
        let started = Instant::now();
        mount.cli(&["prefetch", "--hot", "local/bench"]);
        let archive_bytes = mount.status()["repos"][0]["archive_bytes"]
            .as_u64()
            .unwrap();
        print(&format!(
            "archive {:.1} MiB, first publish {:.1} s; link {} Mbit/s, {ROUND_TRIP:?}\n",
            mib(archive_bytes),
            started.elapsed().as_secs_f64(),
            BYTES_PER_SECOND * 8 / 1_000_000,
        ));
        print("step                                   seconds       MiB  share  requests");
        drop(mount);
        Self {
            site,
            _daemon: daemon,
            _git_daemon: git_daemon,
            link,
            git_link,
            file: file.to_owned(),
            archive_bytes,
        }
    }

    fn print_row(&self, step: &str, took: Duration, bytes: u64, requests: Option<u64>) {
        let share = bytes as f64 * 100.0 / self.archive_bytes as f64;
        let requests = requests.map_or("-".to_owned(), |requests| requests.to_string());
        print(&format!(
            "{step:<38} {:>7.2} {:>9.2} {share:>5.1}% {requests:>9}",
            took.as_secs_f64(),
            mib(bytes)
        ));
    }

    /// Mounts over the slow link, with an empty cache.
    fn cold_mount(&self) -> MountProcess {
        let cache = self.site.path().join("workstation/cache");
        std::fs::remove_dir_all(cache).ok();
        self.site.mount(&format!("http://{}", self.link.address()))
    }

    fn cold_commands(&self) {
        let commands: [(&str, &[&str]); 3] = [
            ("cold: git log -1", &["log", "-1"]),
            ("cold: git status", &["status", "--porcelain"]),
            ("cold: git blame", &["blame", "--", &self.file]),
        ];
        for (step, arguments) in commands {
            self.measure_cold(step, |mount| {
                git(mount.repo("local/bench"), arguments);
            });
        }
        self.measure_cold("cold: cachewfs clone", |mount| {
            let clone = self.site.path().join("clone");
            mount.cli(&["clone", "local/bench", &clone.display().to_string()]);
            std::fs::remove_dir_all(clone).unwrap();
        });
    }

    /// Runs `work` on a cold mount, and prints its time, bytes and requests. The bytes and requests
    /// include those of mounting, the time doesn't.
    fn measure_cold(&self, step: &str, work: impl FnOnce(&MountProcess)) {
        let before = self.link.answer_bytes();
        let mount = self.cold_mount();
        let started = Instant::now();
        work(&mount);
        let took = started.elapsed();
        let requests = mount.traffic("requests");
        self.print_row(
            step,
            took,
            self.link.answer_bytes() - before,
            Some(requests),
        );
    }

    fn git_itself(&self) {
        let url = format!("git://{}/bench", self.git_link.address());
        let kinds: [&[&str]; 3] = [&[], &["--filter=blob:none"], &["--depth=1"]];
        for options in kinds {
            let before = self.git_link.answer_bytes();
            let started = Instant::now();
            let arguments = [&["clone", "-q"], options, &[&url, "plain"]].concat();
            git(self.site.path(), &arguments);
            let took = started.elapsed();
            std::fs::remove_dir_all(self.site.path().join("plain")).unwrap();
            let step = format!("git clone {}", options.join(" "));
            self.print_row(&step, took, self.git_link.answer_bytes() - before, None);
        }
    }

    /// Pushes a commit that changes one file. Measures the bytes that its publish writes and that a
    /// mount fetches to catch up.
    fn one_commit_later(&self) {
        let mount = self.cold_mount();
        mount.cli(&["prefetch", "--hot", "local/bench"]);
        let work = self.site.path().join("work");
        let upstream = self.site.upstreams().join("bench").display().to_string();
        git(
            self.site.path(),
            &["clone", "-q", "--shared", &upstream, "work"],
        );
        let store = self.site.path().join("daemon/data/store");
        let (stored, fetched) = (bytes_below(&store), self.link.answer_bytes());
        let started = Instant::now();

        let path = work.join(&self.file);
        let mut file = File::options().append(true).open(path).unwrap();
        writeln!(file, "one more line").unwrap();
        git(&work, &["commit", "-q", "-a", "-m", "one commit later"]);
        git(&work, &["push", "-q", "origin", "HEAD"]);
        let commit = git(&work, &["rev-parse", "HEAD"]);
        wait_until("the mount shows the commit", || {
            git(mount.repo("local/bench"), &["rev-parse", "HEAD"]) == commit
        });

        let took = started.elapsed();
        self.print_row("publish: written", took, bytes_below(&store) - stored, None);
        self.print_row(
            "publish: fetched to catch up",
            took,
            self.link.answer_bytes() - fetched,
            None,
        );
    }

    /// Reads the largest pack through the mount, and the largest file of the cache, and prints how
    /// fast.
    fn read_cached(&self) {
        let mount = self.site.mount(&format!("http://{}", self.link.address()));
        mount.cli(&["prefetch", "--all", "local/bench"]);
        let pack = largest(&mount.packs("local/bench"));
        let cached = largest(&self.site.path().join("workstation/cache"));
        for (through, file) in [("mount", pack), ("cache file", cached)] {
            let best = (0..4).map(|_| throughput(&file)).max().unwrap();
            print(&format!("read of a cached pack, {through}: {best} MiB/s"));
        }
    }
}

/// Returns the path of the largest file below `directory`.
fn largest(directory: &Path) -> PathBuf {
    let mut waiting = vec![directory.to_owned()];
    let mut largest = (0, PathBuf::new());
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.len() > largest.0 {
                largest = (metadata.len(), entry.path());
            }
        }
    }
    largest.1
}

/// Reads a file from front to back. Returns the MiB per second.
fn throughput(path: &Path) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path).unwrap();
    let mut bytes = 0;
    let started = Instant::now();
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        bytes += count as u64;
    }
    let microseconds = started.elapsed().as_micros().max(1);
    u64::try_from((u128::from(bytes) * 1_000_000 / microseconds) >> 20).unwrap_or(u64::MAX)
}
