//! The daemon's name in the URL of a mount gets another address, or none.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, Fault, GitRepo, HostNames, MountProcess, Network, Proxy, Site, can_mount,
    free_address, git, run, run_with_deadline, wait_until,
};
use rustix::io::Errno;

use crate::silence::{LARGE, read};

const NAME: &str = "daemon.test";

/// Returns an address of the loopback interface that no other test process uses.
fn loopback(number: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, number)
}

/// Mounts with `names`, and looks at `local/project`.
fn mount(site: &Site, names: &HostNames, (port, options): (u16, &str)) -> MountProcess {
    let wrapper = names.wrapper();
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let url = format!("http://{NAME}:{port}");
    let workstation = site.path().join("workstation");
    let mount = MountProcess::start_within(&wrapper, &workstation, (&url, options));
    mount.look("local/project");
    mount
}

/// Reads a file of `local/project`. Panics if its bytes are wrong. Returns how long it took.
fn read_right(mount: &MountProcess, repo: &GitRepo, name: &str) -> Duration {
    let (bytes, took) = read(&mount.repo("local/project").join(name));
    assert!(bytes.unwrap() == fs::read(repo.work.join(name)).unwrap());
    took
}

#[test]
fn a_mount_follows_the_name_of_its_daemon_to_another_address() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_of_files("project", (3, LARGE));
    let daemon = site.daemon();
    let old = Proxy::start_at((loopback(2), 0).into(), daemon.address());
    let port = old.address().port();
    let _new = Proxy::start_at((loopback(3), port).into(), daemon.address());
    let names = HostNames::create(&site.path().join("workstation"));
    names.set(&[(NAME, loopback(2).into())]);
    let mount = mount(&site, &names, (port, "hydrate=off"));
    read_right(&mount, &repo, "0");

    old.set(Fault::Stall);
    names.set(&[(NAME, loopback(3).into())]);

    // Longer than over a connection that is kept: the old one has to prove dead first.
    let took = read_right(&mount, &repo, "1");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let took = read_right(&mount, &repo, "2");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    repo.write("3", b"new\n");
    let commit = repo.commit("new");
    repo.push();
    wait_until("the mount catches up over the new address", || {
        git(mount.repo("local/project"), &["rev-parse", "HEAD"]).trim() == commit
    });
}

#[test]
fn a_name_without_an_answer_costs_no_more_than_a_silent_daemon() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_of_files("project", (3, LARGE));
    let daemon = site.daemon();
    // Published before: that takes time of its own.
    site.mount(&daemon.url()).look("local/project");
    let proxy = Proxy::start_at((loopback(2), 0).into(), daemon.address());
    let port = proxy.address().port();
    let resolver = IpAddr::from(loopback(9));
    let _silent = UdpSocket::bind((resolver, 53)).unwrap();
    let names = HostNames::create(&site.path().join("workstation"));
    names.set_resolver(resolver);
    names.set(&[(NAME, loopback(2).into())]);
    let options = "hydrate=off,read_timeout=4s,lookup_timeout=2s";
    let mut mount = mount(&site, &names, (port, options));
    let lookup = |name: &str| {
        let path = mount.repo("local").join(name);
        let started = Instant::now();
        let error = fs::metadata(path).unwrap_err();
        (Errno::from_io_error(&error).unwrap(), started.elapsed())
    };

    // A connection that there is needs no name.
    names.set(&[]);
    read_right(&mount, &repo, "0");

    proxy.silence_connections();
    let (outcome, took) = read(&mount.repo("local/project").join("1"));
    outcome.unwrap_err();
    assert!(took < Duration::from_secs(6), "{took:?}");
    let (_, took) = lookup("unknown");
    assert!(took < Duration::from_secs(4), "{took:?}");
    let (errno, took) = lookup("another");
    assert_eq!(errno, Errno::HOSTUNREACH);
    assert!(took < Duration::from_secs(1), "{took:?}");

    names.set(&[(NAME, loopback(2).into())]);
    wait_until("the outage ends", || mount.status()["outage"].is_null());
    read_right(&mount, &repo, "1");

    // An unmount doesn't wait for the resolver either.
    names.set(&[]);
    proxy.silence_connections();
    let file = mount.repo("local/project").join("2");
    let before = mount.traffic("demand_requests");
    let reading = std::thread::spawn(move || read(&file).0.unwrap_err());
    wait_until("a read waits", || mount.traffic("demand_requests") > before);
    let point = mount.point.display().to_string();
    let unmounting = move || run(&["umount", &point]);
    let unmounted = run_with_deadline("an unmount", Duration::from_secs(4), unmounting);
    assert!(unmounted.status.success(), "{unmounted:?}");
    assert_eq!(mount.wait(), Some(0));
    reading.join().unwrap();
}

#[test]
fn of_two_addresses_of_a_name_one_may_be_a_black_hole() {
    if !can_mount() {
        return;
    }
    let Some(network) = Network::create(2) else {
        return;
    };
    let site = Site::default();
    let repo = site.repo_of_files("project", (2, LARGE));
    let port = free_address().port();
    let daemon = daemon_at(&site.path().join("daemon"), &site, &network, port);
    let names = HostNames::create(&site.path().join("workstation"));
    let addresses = [1, 2].map(|host| (NAME, IpAddr::from(network.address(host))));
    names.set(&addresses);
    network.cut(1, network.local_address(1));

    let mount = mount(&site, &names, (port, "hydrate=off"));

    for name in ["0", "1"] {
        let took = read_right(&mount, &repo, name);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    drop((mount, daemon));
}

/// Starts a daemon on the second host.
fn daemon_at(directory: &Path, site: &Site, network: &Network, port: u16) -> DaemonProcess {
    let address = SocketAddr::from((network.address(2), port));
    let text = format!(
        "data_dir = \"{}\"\n[upstreams]\nlocal = \"file://{}\"\n",
        site.path().join("data").display(),
        site.upstreams().display()
    );
    let by_way = ["ip", "netns", "exec", &network.namespace(2)];
    DaemonProcess::launch(directory, (&by_way, address), &text)
}
