//! Processes that are frozen, as by a suspend, a container engine or `systemctl freeze`.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachewfs_tests::{
    Fault, Freezer, MountProcess, Proxy, Site, can_mount, run, run_with_deadline, wait_until,
    wait_up_to,
};

use crate::silence::{LARGE, read};

/// Starts to read a file of `local/project` whose bytes are missing.
fn start_reading(mount: &MountProcess, name: &str) -> Child {
    let mut cat = Command::new("cat");
    cat.arg(mount.repo("local/project").join(name));
    cat.stdout(Stdio::piped()).stderr(Stdio::null());
    cat.spawn().unwrap()
}

#[test]
fn the_readers_of_a_frozen_mount_can_be_killed_and_the_commands_say_that_it_does_not_answer() {
    if !can_mount() {
        return;
    }
    let Some(freezer) = Freezer::create("mount") else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (2, LARGE));
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.look("local/project");
    freezer.add(mount.pid());
    freezer.freeze();

    let mut reader = start_reading(&mount, "0");
    reader.kill().unwrap();
    let limit = Duration::from_secs(5);
    let ended = run_with_deadline("the end of a reader", limit, move || reader.wait().unwrap());
    assert_eq!(ended.signal(), Some(9));
    let (point, pid) = (mount.point.display().to_string(), mount.pid().to_string());
    let commands = [vec!["status", "--mount", &point], vec!["umount", &point]].map(|command| {
        let command: Vec<_> = command.into_iter().map(str::to_owned).collect();
        std::thread::spawn(move || {
            let started = Instant::now();
            let command: Vec<_> = command.iter().map(String::as_str).collect();
            (run(&command), started.elapsed())
        })
    });
    for command in commands {
        let (output, took) = command.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(
            stderr.contains("doesn't answer") && stderr.contains(&pid),
            "{stderr}"
        );
        assert!(took < Duration::from_secs(20), "{took:?}");
    }

    freezer.thaw();
    for name in ["0", "1"] {
        let (bytes, _) = read(&mounted.join(name));
        assert!(bytes.unwrap() == fs::read(repo.work.join(name)).unwrap());
    }
    assert_eq!(
        mount.status()["repos"][0]["failed_reads"],
        serde_json::json!([])
    );
}

#[test]
fn a_read_under_way_succeeds_after_a_freeze_that_outlasts_its_deadline() {
    if !can_mount() {
        return;
    }
    let Some(freezer) = Freezer::create("reading") else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (1, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=3s");
    mount.look("local/project");
    freezer.add(mount.pid());
    proxy.set(Fault::Stall);
    let before = mount.traffic("demand_requests");
    let reader = start_reading(&mount, "0");
    wait_until("it waits", || mount.traffic("demand_requests") > before);

    freezer.freeze();
    let frozen = Instant::now();
    proxy.set(Fault::None);
    wait_until("the deadline has passed", || {
        frozen.elapsed() > Duration::from_secs(5)
    });
    freezer.thaw();

    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", mount.log());
    assert!(output.stdout == fs::read(repo.work.join("0")).unwrap());
    assert!(!mount.log().contains("WARN"), "{}", mount.log());
}

#[test]
fn a_read_that_fails_first_after_a_freeze_tries_again() {
    if !can_mount() {
        return;
    }
    let Some(freezer) = Freezer::create("failing") else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (1, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=3s");
    mount.look("local/project");
    freezer.add(mount.pid());
    proxy.set(Fault::Stall);
    let before = mount.traffic("demand_requests");
    let reader = start_reading(&mount, "0");
    wait_until("it waits", || mount.traffic("demand_requests") > before);
    let failed = mount.traffic("retries");

    freezer.freeze();
    let frozen = Instant::now();
    // As a network that comes back later than the process.
    proxy.set(Fault::Unavailable);
    wait_until("the deadline has passed", || {
        frozen.elapsed() > Duration::from_secs(5)
    });
    freezer.thaw();
    wait_until("an attempt has failed", || {
        mount.traffic("retries") > failed
    });
    proxy.set(Fault::None);

    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", mount.log());
    assert!(output.stdout == fs::read(repo.work.join("0")).unwrap());
}

#[test]
fn a_machine_can_sleep_although_programs_wait_for_a_dead_network() {
    if !can_mount() {
        return;
    }
    let Some(freezer) = Freezer::create("sleep") else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (3, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off");
    let mounted = mount.look("local/project");
    proxy.set(Fault::Stall);
    let before = mount.traffic("demand_requests");
    let readers = ["0", "1"].map(|name| start_reading(&mount, name));
    wait_until("they wait", || {
        mount.traffic("demand_requests") >= before + 2
    });
    let started = Instant::now();

    let prepared = run(&["before-sleep", &mount.point.display().to_string()]);

    assert!(prepared.status.success(), "{prepared:?}");
    // The mount's own limit is 15 s without a byte.
    assert!(started.elapsed() < Duration::from_secs(10));
    // A process whose call is not answered can't be frozen together with the mount.
    for process in readers.iter().map(Child::id).chain([mount.pid()]) {
        freezer.add(process);
    }
    freezer.start_freezing();
    wait_up_to(Duration::from_secs(5), "all are frozen", || {
        freezer.is_frozen()
    });
    freezer.thaw();
    for reader in readers {
        assert!(!reader.wait_with_output().unwrap().status.success());
    }
    assert!(mount.log().contains("the machine is about to sleep"));

    proxy.set(Fault::None);
    for name in ["0", "1", "2"] {
        let path = mounted.join(name);
        wait_until("it can be read again", || fs::read(&path).is_ok());
        assert!(fs::read(&path).unwrap() == fs::read(repo.work.join(name)).unwrap());
    }
}

#[test]
fn a_reader_that_waits_for_a_dead_network_can_be_frozen_after_its_deadline() {
    if !can_mount() {
        return;
    }
    let Some(freezer) = Freezer::create("reader") else {
        return;
    };
    let site = Site::default();
    site.repo_of_files("project", (1, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=3s");
    mount.look("local/project");
    proxy.set(Fault::Stall);
    let before = mount.traffic("demand_requests");
    let reader = start_reading(&mount, "0");
    wait_until("it waits", || mount.traffic("demand_requests") > before);

    freezer.add(reader.id());
    freezer.start_freezing();
    wait_up_to(Duration::from_secs(5), "the reader is frozen", || {
        freezer.is_frozen()
    });
    freezer.thaw();

    assert!(!reader.wait_with_output().unwrap().status.success());
}
