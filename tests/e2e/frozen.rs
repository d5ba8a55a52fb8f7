//! Processes that are frozen, as by a suspend, a container engine or `systemctl freeze`.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, Fault, Freezer, GitRepo, MountProcess, Proxy, Site, can_mount, run,
    run_with_deadline, wait_until, wait_up_to,
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

/// A read that waits for bytes, in a mount that can be frozen.
struct WaitingRead {
    reader: Child,
    mount: MountProcess,
    proxy: Proxy,
    _daemon: DaemonProcess,
    repo: GitRepo,
    _site: Site,
    /// Dropped last: its control group can only be removed once the mount has ended.
    freezer: Freezer,
}

impl WaitingRead {
    /// Returns `None` if nothing can be mounted or frozen here.
    fn start(name: &str) -> Option<Self> {
        let freezer = can_mount().then(|| Freezer::create(name))??;
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
        Some(Self {
            reader,
            mount,
            proxy,
            _daemon: daemon,
            repo,
            _site: site,
            freezer,
        })
    }

    /// Freezes the mount until the deadline of the read has passed. From the beginning of the
    /// freeze, the network has `fault`.
    fn freeze_beyond_deadline(&self, fault: Fault) {
        self.freezer.freeze();
        let frozen = Instant::now();
        self.proxy.set(fault);
        wait_until("the deadline has passed", || {
            frozen.elapsed() > Duration::from_secs(5)
        });
        self.freezer.thaw();
    }

    /// Returns the mount's log. Panics unless the read gets right bytes.
    fn succeed(self) -> String {
        let output = self.reader.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", self.mount.log());
        assert!(output.stdout == fs::read(self.repo.work.join("0")).unwrap());
        self.mount.log()
    }
}

#[test]
fn a_read_under_way_succeeds_after_a_freeze_that_outlasts_its_deadline() {
    let Some(read) = WaitingRead::start("reading") else {
        return;
    };

    read.freeze_beyond_deadline(Fault::None);

    let log = read.succeed();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_read_that_fails_first_after_a_freeze_tries_again() {
    let Some(read) = WaitingRead::start("failing") else {
        return;
    };
    let failed = read.mount.traffic("retries");

    // As a network that comes back later than the process.
    read.freeze_beyond_deadline(Fault::Unavailable);
    wait_until("an attempt has failed", || {
        read.mount.traffic("retries") > failed
    });
    read.proxy.set(Fault::None);

    read.succeed();
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
