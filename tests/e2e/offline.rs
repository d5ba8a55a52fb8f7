//! A mount without a daemon: what it knows, it shows at once.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cachewfs_tests::{
    Fault, GitRepo, Proxy, Site, can_mount, git, http_request, run_with_deadline, try_git,
    wait_until,
};

/// A pushed repository with two files.
fn small_repo(site: &Site, name: &str) -> GitRepo {
    let mut repo = site.repo(name);
    for file in ["README.md", "other"] {
        repo.write(file, file.repeat(100_000).as_bytes());
    }
    repo.commit("two files");
    repo.push();
    repo
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_mount_that_starts_without_a_daemon_shows_what_it_has_and_catches_up() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut pinned = site.repo_with_history("org/pinned");
    let read = small_repo(&site, "org/read");
    let mut daemon = site.daemon();
    let mut mount = site.mount(&daemon.url());
    mount.cli(&["pin", "local/org/pinned"]);
    let head = git(mount.repo("local/org/read"), &["log", "-1"]);
    git(mount.repo("local/org/read"), &["status"]);
    let clone = site.path().join("clone");
    let target = clone.display().to_string();
    mount.cli(&["clone", "local/org/pinned", &target]);
    assert_eq!(mount.terminate(), Some(0));
    daemon.kill();

    let mount = site.mount(&daemon.url());

    assert_eq!(names(&mount.point.join("local/org")), ["pinned", "read"]);
    for reading in [&["log", "-p", "--format=%H"][..], &["grep", "-c", "11"]] {
        let expected = git(&pinned.work, reading);
        assert_eq!(git(mount.repo("local/org/pinned"), reading), expected);
    }
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    assert_eq!(git(mount.repo("local/org/read"), &["log", "-1"]), head);
    assert_eq!(git(&read.work, &["log", "-1"]), head);
    // An answer, not a wait, for what isn't known.
    assert!(fs::metadata(mount.repo("local/org/unknown")).is_err());
    wait_until("the mount notes that it is offline", || {
        mount.status()["outage"]["since"].is_u64()
    });
    assert!(mount.cli(&["status"]).contains("offline since 20"));

    pinned.write("new", b"new\n");
    let commit = pinned.commit("new");
    pinned.push();
    daemon.restart();
    wait_until("the mount catches up", || {
        git(mount.repo("local/org/pinned"), &["rev-parse", "HEAD"]).trim() == commit
    });
    wait_until("the mount notes that it is online", || {
        mount.status()["outage"].is_null()
    });
}

#[test]
fn a_silent_daemon_is_waited_for_once() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    small_repo(&site, "org/project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=all,lookup_timeout=2s");
    mount.cli(&["prefetch", "--all", "local/org/project"]);
    let mounted = mount.repo("local/org/project");
    let log = git(&mounted, &["log", "-p"]);
    proxy.set(Fault::Stall);

    let first = Instant::now();
    let waited = fs::metadata(mount.repo("local/org/unknown")).unwrap_err();
    assert_eq!(
        waited.raw_os_error(),
        Some(rustix::io::Errno::AGAIN.raw_os_error())
    );
    assert!(first.elapsed() >= Duration::from_secs(2));

    let others = Instant::now();
    for number in 0..20 {
        let unknown = mount.repo(&format!("local/org/unknown{number}"));
        let refused = fs::metadata(unknown).unwrap_err();
        let unreachable = rustix::io::Errno::HOSTUNREACH.raw_os_error();
        assert_eq!(refused.raw_os_error(), Some(unreachable));
    }
    assert_eq!(names(&mount.point), ["local"]);
    assert!(fs::metadata(mount.repo("other-host")).is_err());
    assert_eq!(git(&mounted, &["log", "-p"]), log);
    // Each of these 22 waited for two seconds.
    assert!(others.elapsed() < Duration::from_secs(20));
    // Once for the lookup that waited, and once for the outage.
    let log = mount.log();
    assert!(log.matches("WARN").count() <= 2, "{log}");
    // An unmount would wait for the requests.
    proxy.set(Fault::None);
}

#[test]
fn a_process_that_waits_for_the_network_can_be_killed() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    small_repo(&site, "project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,lookup_timeout=30s");
    let mounted = mount.repo("local/project");
    git(&mounted, &["status"]);
    proxy.set(Fault::Stall);

    for waiting in [mount.repo("local/unknown"), mounted.join("README.md")] {
        let before = mount.traffic("demand_requests");
        let mut reader = Command::new("cat").arg(waiting).spawn().unwrap();
        wait_until("it waits", || mount.traffic("demand_requests") > before);
        reader.kill().unwrap();
        let ended = run_with_deadline(
            "the end of a killed process",
            Duration::from_secs(5),
            move || reader.wait().unwrap(),
        );
        assert_eq!(ended.signal(), Some(9));
    }
    // An unmount would wait for the requests.
    proxy.set(Fault::None);
}

#[test]
fn names_that_tools_look_for_go_nowhere() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    small_repo(&site, "org/project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    // git looks into each directory above for a repository.
    let started = Instant::now();
    assert!(
        !try_git(&mount.point.join("local/org"), &["status"])
            .status
            .success()
    );
    for directory in ["", "local", "local/org"] {
        for name in [".git", ".hg", ".envrc", "package.json", "node_modules"] {
            let error = fs::metadata(mount.point.join(directory).join(name)).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::NotFound,
                "{directory}/{name}"
            );
        }
    }

    let limit = Duration::from_secs(20);
    let listed = http_request(daemon.address(), ("GET", "/api/v1/repos"), &[], limit).unwrap();
    let listed = listed.text();
    let asked: Vec<_> = [
        ".git",
        ".hg",
        "envrc",
        "package",
        "node",
        "HEAD",
        "commondir",
    ]
    .into_iter()
    .filter(|name| listed.contains(name))
    .collect();
    assert!(asked.is_empty(), "{asked:?} in {listed}");
    assert!(started.elapsed() < Duration::from_secs(20));
}
