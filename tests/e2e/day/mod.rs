//! A day in the life of a mount: whatever happens to the machine, its users see right bytes or, in
//! time, an error.

mod calls;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, Freezer, GitRepo, MountProcess, Network, OtherUser, Site, SmallDisk, can_mount,
    free_address, git, git_command, run, said, try_git, wait_until,
};

use crate::hand_over::Shell;
use crate::silence::LARGE;
use calls::{Calls, Watcher, assert_same_files, check_log};

/// The `read_timeout` of the mount. With less than 15 s, it is also the limit of silence.
const READ: Duration = Duration::from_secs(6);
/// The `lookup_timeout` of the mount.
const LOOKUP: Duration = Duration::from_secs(2);
/// How long the machine may take for its own part of a call: two cores, and other tests beside.
const SLACK: Duration = Duration::from_secs(2);
/// How long a call takes that needs no network.
const LOCAL: Duration = SLACK;
/// How long the suspend lasts: longer than a read may wait.
const SUSPEND: Duration = Duration::from_secs(7);
/// How long requests wait after a stop of the mount.
const GRACE: Duration = Duration::from_secs(5);

/// The hosts in the network.
const CLUSTER: u8 = 1;
const WORKSTATION: u8 = 2;

/// Everything that the mount may log on such a day: the level, and the beginning of the message.
const LOG: [(&str, &str); 13] = [
    ("INFO", "Mounted at "),
    ("INFO", "Showing local/org/"),
    ("INFO", "Caught up local/org/pinned "),
    // Before the first snapshot is there.
    ("WARN", "Can't find out which names are in /local/org "),
    // Once for each time without a network.
    ("WARN", "No daemon answers: showing what is on disk"),
    ("INFO", "A daemon answers again"),
    (
        "INFO",
        "The network or the clock changed: dropping the connections",
    ),
    // Once for each file and reason.
    ("WARN", "Can't read local/org/cold/"),
    // While the disk is full.
    (
        "WARN",
        "Can't use the cache, reading on without it: No space left",
    ),
    ("WARN", "Can't write "),
    ("INFO", "The cache can be used again"),
    // The upgrade.
    ("INFO", "Took over the mount at "),
    (
        "INFO",
        "Another process serves the mount now: this one ends",
    ),
];

/// The machines, and what their user knows.
struct Day {
    site: Site,
    network: Network,
    disk: SmallDisk,
    daemon: DaemonProcess,
    pinned: GitRepo,
    cold: GitRepo,
    /// A plain clone of `pinned`.
    plain: PathBuf,
    /// The number of the next file of `cold` that was never read.
    next: u32,
    calls: Arc<Calls>,
}

impl Day {
    fn prepare() -> Option<Self> {
        let (network, disk) = (Network::create(2)?, SmallDisk::mount("256m")?);
        let site = Site::default();
        let pinned = site.repo_with_history("org/pinned");
        let cold = site.repo_of_files("org/cold", (12, LARGE));
        let plain = site.plain_clone(&pinned, "pinned");
        let address = (network.address(CLUSTER), free_address().port());
        let text = format!(
            "data_dir = \"{}\"\nfetch_interval = \"500ms\"\n\
             [upstreams]\nlocal = \"file://{}\"\n",
            site.path().join("data").display(),
            site.upstreams().display()
        );
        let within = network.within(CLUSTER);
        let within: Vec<_> = within.iter().map(String::as_str).collect();
        let directory = site.path().join("daemon");
        let daemon = DaemonProcess::launch(&directory, (&within, address.into()), &text);
        Some(Self {
            site,
            network,
            disk,
            daemon,
            pinned,
            cold,
            plain,
            next: 0,
            calls: Arc::default(),
        })
    }

    fn mount(&self) -> MountProcess {
        let within = self.network.within(WORKSTATION);
        let within: Vec<_> = within.iter().map(String::as_str).collect();
        let options = format!(
            "allow_other,hydrate=off,cache_dir={},read_timeout={}s,lookup_timeout={}s",
            self.disk.path().join("cache").display(),
            READ.as_secs(),
            LOOKUP.as_secs()
        );
        let workstation = self.site.path().join("workstation");
        MountProcess::start_within(&within, &workstation, (&self.daemon.url(), &options))
    }

    /// Cuts the workstation off without a sign: no answer of the cluster arrives.
    fn cut(&self) {
        let workstation = self.network.address(WORKSTATION);
        self.network.cut(CLUSTER, workstation);
    }

    fn reconnect(&self) {
        let workstation = self.network.address(WORKSTATION);
        self.network.reconnect(CLUSTER, workstation);
    }

    /// Panics unless the pinned repository is as git clones it.
    fn check_pinned(&self, mount: &MountProcess) {
        let mounted = mount.repo("local/org/pinned");
        for reading in [
            &["log", "-p", "--format=%H"][..],
            &["status", "--porcelain"],
        ] {
            assert_eq!(git(&mounted, reading), git(&self.plain, reading));
        }
        assert_same_files(&mounted, &self.plain);
    }

    /// Returns the number of a file of the cold repository that was never read.
    fn fresh(&mut self) -> String {
        self.next += 1;
        (self.next - 1).to_string()
    }

    /// Reads a file of the cold repository. Panics if it reads wrong bytes.
    fn read(&self, mount: &MountProcess, name: &str) -> std::io::Result<()> {
        let path = mount.repo("local/org/cold").join(name);
        let bytes = self
            .calls
            .time("read over the network", || fs::read(path))?;
        assert!(bytes == fs::read(self.cold.work.join(name)).unwrap());
        Ok(())
    }

    /// Waits until a file of the cold repository can be read: for a second after a failure it
    /// can't.
    fn read_again(&self, mount: &MountProcess, name: &str) {
        wait_until("the file can be read", || self.read(mount, name).is_ok());
    }

    /// Reads a file of the cold repository while `meanwhile` runs, which begins when the read
    /// waits.
    fn read_during(&self, mount: &MountProcess, name: &str, meanwhile: impl FnOnce()) {
        let before = mount.traffic("demand_requests");
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| self.read(mount, name));
            wait_until("the read waits", || {
                mount.traffic("demand_requests") > before
            });
            meanwhile();
            let outcome = reading.join().unwrap();
            assert!(outcome.is_ok(), "{outcome:?}; the log: {}", mount.log());
        });
    }
}

fn wait_until_online(mount: &MountProcess) {
    wait_until("the mount is online", || mount.status()["outage"].is_null());
}

/// Lets `duration` pass.
fn pass(duration: Duration) {
    let started = Instant::now();
    wait_until("time has passed", || started.elapsed() >= duration);
}

#[test]
fn a_day_in_the_life() {
    if !can_mount() {
        return;
    }
    let (Some(mut day), Some(freezer)) = (Day::prepare(), Freezer::create("day")) else {
        return;
    };
    let calls = Arc::clone(&day.calls);
    yesterday(&mut day);

    calls.begin("boot without a network", LOCAL);
    day.network.unplug(WORKSTATION);
    let mut mount = calls.time("mount", || day.mount());
    let watcher = Watcher::start(&calls, mount.repo("local/org/pinned"));
    morning(&day, &mount);

    calls.begin("network comes, catch-up", READ + SLACK);
    network_comes(&mut day, &mount);

    calls.begin("VPN drops silently, twice", READ + SLACK);
    vpn_drops(&mut day, &mount);

    calls.begin("the daemon refuses", READ + SLACK);
    daemon_refuses(&mut day, &mount);

    calls.begin("suspend", SUSPEND + GRACE + SLACK);
    suspend(&mut day, &mount, &freezer);

    calls.begin("upgrade", READ + SLACK);
    upgrade(&day, &mut mount);

    calls.begin("another user", LOCAL);
    another_user(&day, &mount);

    calls.begin("disk full", READ + SLACK);
    disk_full(&mut day, &mount);

    calls.begin("shut down", READ + SLACK);
    watcher.end();
    shut_down(&day, &mut mount);
    let log = mount.log();
    drop(mount);

    calls.begin("boot on the next day", LOCAL);
    day.network.unplug(WORKSTATION);
    let mut mount = calls.time("mount", || day.mount());
    day.check_pinned(&mount);
    for name in 0..day.next {
        day.read(&mount, &name.to_string()).unwrap();
    }
    assert_eq!(mount.terminate(), Some(0));

    calls.check();
    assert!(mount.log().starts_with(&log));
    check_log(&mount.log(), &LOG);
}

/// Pins one repository, and reads a file of the other.
fn yesterday(day: &mut Day) {
    day.calls.begin("the day before", Duration::from_mins(1));
    let mut mount = day.mount();
    // The first snapshot takes its time.
    wait_until("the daemon has published", || {
        ["pinned", "cold"]
            .iter()
            .all(|name| mount.repo(&format!("local/org/{name}")).exists())
    });
    mount.cli(&["pin", "local/org/pinned"]);
    mount.look("local/org/cold");
    let name = day.fresh();
    day.read(&mount, &name).unwrap();
    assert_eq!(mount.terminate(), Some(0));
}

fn morning(day: &Day, mount: &MountProcess) {
    day.check_pinned(mount);
    day.read(mount, "0").unwrap();
    mount.look("local/org/cold");
    let unknown = mount.repo("local/org/unknown");
    day.calls.time("lookup of an unknown repository", || {
        fs::metadata(unknown).unwrap_err()
    });
    assert!(
        day.calls
            .time("status", || mount.cli(&["status"]))
            .contains("offline since")
    );
    // Work: a clone, and a commit in it.
    let clone = day.site.path().join("clone");
    let target = clone.display().to_string();
    mount.cli(&["clone", "local/org/pinned", &target]);
    assert_same_files(&clone, &day.plain);
    fs::copy(clone.join("README.md"), clone.join("copy")).unwrap();
    git(&clone, &["add", "copy"]);
    git(&clone, &["commit", "-q", "-m", "work"]);
    assert!(try_git(&clone, &["fsck"]).status.success());
    let grep = ["grep", "-c", "11 line"];
    let mounted = mount.repo("local/org/pinned");
    assert_eq!(git(mounted, &grep), git(&day.plain, &grep));
}

fn network_comes(day: &mut Day, mount: &MountProcess) {
    day.pinned.write("new", b"pushed in the night\n");
    let commit = day.pinned.commit("in the night");
    day.pinned.push();
    git(&day.plain, &["pull", "-q"]);
    day.network.plug_in(WORKSTATION);
    wait_until_online(mount);
    wait_until("the mount catches up", || {
        git(mount.repo("local/org/pinned"), &["rev-parse", "HEAD"]).trim() == commit
    });
    day.check_pinned(mount);
    let name = day.fresh();
    day.read(mount, &name).unwrap();
}

/// Once it returns in time for a read that waits, and once it doesn't.
fn vpn_drops(day: &mut Day, mount: &MountProcess) {
    let name = day.fresh();
    day.cut();
    day.read_during(mount, &name, || {
        pass(Duration::from_secs(2));
        day.reconnect();
    });

    let name = day.fresh();
    day.cut();
    day.read(mount, &name).unwrap_err();
    day.check_pinned(mount);
    let unknown = mount.repo("local/org/unknown");
    day.calls.time("lookup of an unknown repository", || {
        fs::metadata(unknown).unwrap_err()
    });
    day.reconnect();
    wait_until_online(mount);
    day.read_again(mount, &name);
}

fn daemon_refuses(day: &mut Day, mount: &MountProcess) {
    let name = day.fresh();
    day.daemon.kill();
    day.read(mount, &name).unwrap_err();
    day.check_pinned(mount);
    day.daemon.restart();
    wait_until_online(mount);
    day.read_again(mount, &name);
}

/// The machine sleeps while a read waits, and wakes up before its network does.
fn suspend(day: &mut Day, mount: &MountProcess, freezer: &Freezer) {
    let name = day.fresh();
    freezer.add(mount.pid());
    day.cut();
    day.read_during(mount, &name, || {
        freezer.freeze();
        day.network.unplug(WORKSTATION);
        pass(SUSPEND);
        freezer.thaw();
        day.network.plug_in(WORKSTATION);
        day.reconnect();
    });
    day.check_pinned(mount);
}

/// A new process takes the mount over under a running `git log` and a shell.
fn upgrade(day: &Day, mount: &mut MountProcess) {
    let mounted = mount.repo("local/org/pinned");
    let log = ["log", "-p"];
    let mut shell = Shell::new(&mounted.join("src"));
    let mut running = git_command(&mounted);
    // It prints more than a pipe holds, so it runs until its output is read.
    let mut running = running.args(log).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(running.stdout.take().unwrap());
    let mut printed = String::new();
    output.read_line(&mut printed).unwrap();

    day.calls.time("hand-over", || mount.replace());

    assert_eq!(shell.ask("head -1 dir3/file3.txt"), "3 line");
    output.read_to_string(&mut printed).unwrap();
    assert!(running.wait().unwrap().success());
    assert!(printed == git(&day.plain, &log));
    day.check_pinned(mount);
}

fn another_user(day: &Day, mount: &MountProcess) {
    let user = OtherUser::new(&day.site);
    let mounted = mount.repo("local/org/pinned");
    let mut log = Command::new("git");
    user.own(&mut log);
    log.args(["-c", "safe.directory=*", "-C"]).arg(&mounted);
    log.args(["log", "-p", "--format=%H"])
        .env("HOME", &user.tmp);
    let output = log.output().unwrap();
    let expected = git(&day.plain, &["log", "-p", "--format=%H"]);
    assert!(said(&output) == expected, "{}", said(&output));
    let mut cat = Command::new("cat");
    let cat = user.own(&mut cat).arg(mounted.join("README.md"));
    let bytes = day.calls.time("read", || cat.output().unwrap()).stdout;
    assert!(bytes == fs::read(day.plain.join("README.md")).unwrap());
}

fn disk_full(day: &mut Day, mount: &MountProcess) {
    day.disk.fill();
    let name = day.fresh();
    day.read(mount, &name).unwrap();
    day.check_pinned(mount);
    let point = mount.point.display().to_string();
    let prefetch = ["prefetch", "--all", "local/org/cold", "--mount", &point];
    let failed = run(&prefetch);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(mount.cli(&["status"]).contains("unusable"));

    day.disk.free();
    let fetched = run(&prefetch);
    assert!(fetched.status.success(), "{}", said(&fetched));
    day.next = 12;
}

fn shut_down(day: &Day, mount: &mut MountProcess) {
    let point = mount.point.display().to_string();
    let ended = day.calls.time("umount", || run(&["umount", &point]));
    assert!(ended.status.success(), "{}", said(&ended));
    assert_eq!(mount.wait(), Some(0));
    assert!(!mount.is_mounted());
    assert_eq!(fs::read_dir(&mount.point).unwrap().count(), 0);
    let status = run(&["status", "--mount", &point]);
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
}
