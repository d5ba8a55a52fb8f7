//! A network that falls silent: nothing is refused, and nothing arrives.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, Fault, MountProcess, Network, Proxy, Site, can_mount, git, run_with_deadline,
    try_git, wait_until,
};

/// A file of this length shares no segment with others.
pub(crate) const LARGE: usize = 4 << 20;

/// Reads a file, and returns its bytes and how long that took.
pub(crate) fn read(path: &Path) -> (std::io::Result<Vec<u8>>, Duration) {
    let path = path.to_owned();
    run_with_deadline("a read", Duration::from_mins(1), move || {
        let started = Instant::now();
        (fs::read(path), started.elapsed())
    })
}

#[test]
fn a_read_fails_at_its_deadline_and_not_later() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_of_files("project", (2, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=2s");
    let mounted = mount.look("local/project");
    proxy.set(Fault::Stall);

    let (outcome, took) = read(&mounted.join("0"));
    outcome.unwrap_err();
    assert!(took < Duration::from_millis(3500), "{took:?}");

    // git maps this file, and a fault in a mapped page has the kernel ask three times.
    let started = Instant::now();
    let file = mounted.join("1").display().to_string();
    let hashed = try_git(site.path(), &["hash-object", "--no-filters", &file]);
    let took = started.elapsed();
    assert!(!hashed.status.success());
    assert!(took < Duration::from_millis(3500), "{took:?}");

    // Afterwards it works again.
    proxy.set(Fault::None);
    wait_until("the file is there", || {
        let (outcome, _) = read(&mounted.join("0"));
        outcome.is_ok_and(|bytes| bytes == fs::read(repo.work.join("0")).unwrap())
    });
}

#[test]
fn after_a_silent_cut_the_first_byte_comes_within_5_s() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_of_files("project", (4, LARGE));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount(&proxy.url());
    let mounted = mount.look("local/project");
    let content = |name: &str| fs::read(repo.work.join(name)).unwrap();
    // Several connections, which are kept.
    std::thread::scope(|scope| {
        for name in ["0", "1"] {
            let path = mounted.join(name);
            scope.spawn(move || fs::read(path).unwrap());
        }
    });

    proxy.silence_connections();
    let (bytes, took) = read(&mounted.join("2"));
    assert!(bytes.unwrap() == content("2"));
    assert!(took < Duration::from_secs(5), "{took:?}");

    // The mount has learnt not to use the others.
    let (bytes, took) = read(&mounted.join("3"));
    assert!(bytes.unwrap() == content("3"));
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_change_of_address_costs_no_wait() {
    if !can_mount() {
        return;
    }
    let Some(network) = Network::create(1) else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (2, LARGE));
    let address = SocketAddr::from((network.address(1), 8080));
    let text = format!(
        "data_dir = \"{}\"\n[upstreams]\nlocal = \"file://{}\"\n",
        site.path().join("data").display(),
        site.upstreams().display()
    );
    let by_way = ["ip", "netns", "exec", &network.namespace(1)];
    let daemon = DaemonProcess::launch(&site.path().join("daemon"), (&by_way, address), &text);
    let mount = site.mount(&daemon.url());
    let mounted = mount.look("local/project");
    let content = |name: &str| fs::read(repo.work.join(name)).unwrap();
    assert!(read(&mounted.join("0")).0.unwrap() == content("0"));

    network.leave_from(2);
    network.cut(1, network.local_address(1));
    let (bytes, took) = read(&mounted.join("1"));

    assert!(bytes.unwrap() == content("1"));
    // A request over an old connection would have been waited for, for longer than this.
    assert!(took < Duration::from_millis(1400), "{took:?}");
    assert!(mount.log().contains("The network or the clock changed"));
}

#[test]
fn a_first_lookup_succeeds_although_the_first_daemon_is_silent() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    // Published before: that takes time of its own.
    site.mount(&daemon.url()).look("local/project");
    let silent = Proxy::start(daemon.address());
    silent.set(Fault::Stall);
    let urls = format!("{},{}", silent.url(), daemon.url());

    let mount = site.mount_with_options(&urls, "hydrate=off,lookup_timeout=5s");
    let log = git(mount.repo("local/project"), &["log", "--format=%H"]);

    assert_eq!(log, git(&repo.work, &["log", "--format=%H"]));
}

#[test]
fn stalled_reads_of_one_repository_do_not_stop_another() {
    if !can_mount() {
        return;
    }
    let (stalled_files, site) = (150, Site::default());
    let slow = site.repo_of_files("slow", (stalled_files, 40_000));
    let other = site.repo_of_files("other", (1, 100_000));
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount(&proxy.url());
    let mounted = ["slow", "other"].map(|name| mount.look(&format!("local/{name}")));
    let control = Control::mount(&site.path().join("fusectl"));
    proxy.set(Fault::StallRequests("/local/slow/"));

    std::thread::scope(|scope| {
        for number in 0..stalled_files {
            let name = number.to_string();
            let (shown, real) = (mounted[0].join(&name), slow.work.join(&name));
            scope.spawn(move || assert!(fs::read(shown).unwrap() == fs::read(real).unwrap()));
        }
        wait_until("all of them wait", || {
            control.waiting(&mount) >= stalled_files
        });

        let started = Instant::now();
        let path = mounted[1].join("0");
        let read = std::thread::spawn(move || fs::read(path).unwrap());
        while !read.is_finished() && started.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        // Ends the threads of this scope, also if the next line panics.
        let is_finished = read.is_finished();
        proxy.set(Fault::None);
        assert!(is_finished, "the read of the other repository waits");
        assert!(read.join().unwrap() == fs::read(other.work.join("0")).unwrap());
    });
}

/// The kernel's file system with what it knows of FUSE mounts, mounted at a directory.
struct Control(PathBuf);

impl Control {
    fn mount(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "fusectl", "fusectl"])
            .arg(directory)
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(directory.to_owned())
    }

    /// Returns how many requests of the kernel `mount` has not answered yet.
    fn waiting(&self, mount: &MountProcess) -> usize {
        let device = fs::metadata(&mount.point).unwrap().dev();
        let connection = self.0.join(rustix::fs::minor(device).to_string());
        let waiting = fs::read_to_string(connection.join("waiting")).unwrap();
        waiting.trim().parse().unwrap()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}
