//! The answers of `pin`, `prefetch` and `status` match the cache: on a full disk, with a low limit
//! of open files, and for repositories that share segments.

use std::path::Path;

use cachewfs_tests::{
    Dice, GitRepo, MountProcess, Site, SmallDisk, bytes_below, can_mount, git, run, try_git,
    wait_until,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// An upstream repository with a work tree of `count` files of `len` bytes each.
fn noisy_repo(site: &Site, name: &str, count: u64, len: usize) -> GitRepo {
    let mut repo = site.repo(name);
    for number in 0..count {
        repo.write(
            format!("d{}/f{number}", number % 10),
            &Dice::new(number).noise(len),
        );
    }
    repo.commit("files");
    repo.push();
    repo
}

/// Runs `cachewfs` for a mount. Returns its exit code and what it printed.
fn run_cli(mount: &MountProcess, arguments: &[&str]) -> (Option<i32>, String) {
    let point = mount.point.display().to_string();
    let output = run(&[arguments, &["--mount", &point]].concat());
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

/// Returns the cached and all bytes of the repository `local/<name>`, as the status has them.
fn cached_of(mount: &MountProcess, name: &str) -> (u64, u64) {
    let status = mount.status();
    let repos = status["repos"].as_array().unwrap();
    let repo = repos
        .iter()
        .find(|repo| repo["repo"] == *format!("local/{name}"));
    let parts = repo.unwrap()["parts"].as_array().unwrap();
    let sum = |count: &str| parts.iter().map(|part| part[count].as_u64().unwrap()).sum();
    (sum("cached_bytes"), sum("total_bytes"))
}

fn pid_of(mount: &MountProcess) -> Pid {
    let pid = mount.status()["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[test]
fn a_repository_and_its_fork_are_prefetched_together_and_once() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let origin = noisy_repo(&site, "origin", 400, 4000);
    let upstream = |name: &str| site.upstreams().join(name).display().to_string();
    let (from, to) = (upstream("origin"), upstream("fork"));
    git(site.path(), &["clone", "-q", "--bare", &from, &to]);
    let mut fork = site.repo("fork");
    git(&fork.work, &["pull", "-q", &to, "main"]);
    fork.write("d0/f20", b"changed");
    fork.commit("in the fork");
    fork.push();
    let daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off,read_timeout=5s");
    for name in ["local/origin", "local/fork"] {
        git(mount.repo(name), &["log", "-1"]);
    }

    let outcomes = std::thread::scope(|scope| {
        let mount = &mount;
        let prefetch = |name| move || run_cli(mount, &["prefetch", "--all", name]);
        let one = scope.spawn(prefetch("local/origin"));
        let other = scope.spawn(prefetch("local/fork"));
        [one.join().unwrap(), other.join().unwrap()]
    });

    for (code, text) in outcomes {
        assert_eq!(code, Some(0), "{text}");
    }
    assert!(!mount.log().contains("broken"), "{}", mount.log());
    let (cached, total) = cached_of(&mount, "origin");
    assert_eq!(cached, total);
    // Each byte once. How much the two share depends on when they were published.
    let needed = total + cached_of(&mount, "fork").1;
    let fetched = mount.traffic("fetched_bytes");
    assert!(fetched < needed * 21 / 20, "{fetched} of {needed}");
    assert_eq!(
        git(mount.repo("local/origin"), &["status", "--porcelain"]),
        ""
    );
    assert_eq!(
        git(mount.repo("local/fork"), &["log", "-p"]),
        git(&fork.work, &["log", "-p"])
    );
    drop(origin);
}

#[test]
fn a_pin_on_a_full_disk_says_what_the_cache_kept() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    noisy_repo(&site, "project", 40, 100_000);
    let daemon = site.daemon();
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    let cache = format!("hydrate=off,cache_dir={}", disk.path().display());
    let mount = site.mount_with_options(&daemon.url(), &cache);

    let (pinned, pin) = run_cli(&mount, &["pin", "local/project"]);
    let (prefetched, prefetch) = run_cli(&mount, &["prefetch", "--all", "local/project"]);

    assert_eq!([prefetched, pinned], [Some(1); 2], "{prefetch} {pin}");
    for text in [&prefetch, &pin] {
        assert!(text.contains("the cache has "), "{text}");
        assert!(text.contains("No space left on device"), "{text}");
    }
    let (cached, total) = cached_of(&mount, "project");
    assert!(cached < 1 << 20 && total > 4_000_000, "{cached} of {total}");
    let (_, status) = run_cli(&mount, &["status"]);
    assert!(status.contains("has been unusable"), "{status}");
    let warnings = mount.log().matches("Can't use the cache").count();
    assert_eq!(warnings, 1, "{}", mount.log());

    // Also chunks that arrived while the disk was full are kept now.
    disk.resize("64m");
    let (pinned, pin) = run_cli(&mount, &["pin", "local/project"]);
    assert_eq!(pinned, Some(0), "{pin}");
}

#[test]
fn a_mount_that_may_open_few_files_pins_and_reads_all() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = noisy_repo(&site, "project", 120, 100_000);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    git(mount.repo("local/project"), &["log", "-1"]);
    let pid = pid_of(&mount);
    let limit = prlimit(Some(pid), Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
    assert_eq!(limit.current, limit.maximum, "the soft limit was raised");
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    let few = Some(open.count() as u64 + 10);
    let few = Rlimit {
        current: few,
        maximum: few,
    };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();

    let (code, text) = run_cli(&mount, &["pin", "local/project"]);

    assert_eq!(code, Some(0), "{text}");
    let (cached, total) = cached_of(&mount, "project");
    assert_eq!(cached, total);
    drop(daemon);
    let history = ["log", "-p", "--stat"];
    let mounted = mount.repo("local/project");
    assert_eq!(git(&mounted, &history), git(&repo.work, &history));
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    assert!(
        !mount.log().contains("Can't use the cache"),
        "{}",
        mount.log()
    );
    let segments = count_below(&site.path().join("workstation/cache/v1"), ".data");
    assert!(segments > 10, "{segments}");
}

fn count_below(directory: &Path, suffix: &str) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            if path.is_dir() {
                count_below(&path, suffix)
            } else {
                usize::from(path.to_string_lossy().ends_with(suffix))
            }
        })
        .sum()
}

#[test]
fn a_read_that_fails_is_in_the_status_until_it_succeeds() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = noisy_repo(&site, "project", 4, 400_000);
    let mut daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off,read_timeout=1s");
    let file = mount.repo("local/project").join("d1/f1");
    assert_eq!(file.metadata().unwrap().len(), 400_000);
    daemon.kill();

    std::fs::read(&file).unwrap_err();

    let (_, status) = run_cli(&mount, &["status"]);
    let line = status.lines().find(|line| line.contains("reads of"));
    let line = line.unwrap_or_else(|| panic!("{status}"));
    assert!(line.contains("local/project/d1/f1"), "{line}");
    assert!(line.contains("127.0.0.1"), "no reason: {line}");
    let lines = mount
        .log()
        .matches("Can't read local/project/d1/f1")
        .count();
    assert!((1..=2).contains(&lines), "{}", mount.log());
    daemon.restart();
    // A failure answers reads of the same bytes for a moment more.
    let mut read = Vec::new();
    wait_until("the file can be read", || {
        std::fs::read(&file).is_ok_and(|bytes| {
            read = bytes;
            true
        })
    });
    assert!(read == std::fs::read(repo.work.join("d1/f1")).unwrap());
    let failed = &mount.status()["repos"][0]["failed_reads"];
    assert_eq!(failed.as_array().unwrap().len(), 0, "{failed}");
}

#[test]
fn parts_that_came_in_groups_count_as_cached_also_after_a_restart() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    mount.cli(&["pin", "local/project"]);
    let (cached, total) = cached_of(&mount, "project");
    assert_eq!(cached, total);
    drop(mount);

    let mount = site.mount(&daemon.url());
    try_git(&mount.repo("local/project"), &["log", "-1"]);
    wait_until("the repository is shown", || {
        mount.status()["repos"][0]["snapshot"].is_string()
    });

    assert_eq!(cached_of(&mount, "project"), (total, total));
    assert!(bytes_below(&site.path().join("workstation/cache")) > 0);
}
