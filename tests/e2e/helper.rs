//! The mount helper `mount.cachewfs`, run as mount(8) runs it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cachewfs_tests::{
    Fault, Network, Proxy, Site, binary, can_mount, free_address, git, run, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};

/// Runs the CLI through a link named `mount.cachewfs`, as mount(8) does.
fn helper(site: &Site, arguments: &[&str]) -> Output {
    let link = site.path().join("mount.cachewfs");
    std::os::unix::fs::symlink(binary("cachewfs"), &link).ok();
    Command::new(link)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A mount that a background process serves. Dropping it unmounts.
pub(crate) struct BackgroundMount(pub(crate) PathBuf);

impl BackgroundMount {
    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(&format!(" {} ", self.0.display()))
    }

    /// The directory of its process in `/proc`.
    fn process(&self) -> PathBuf {
        let point = self.0.display().to_string();
        let status = run(&["status", "--json", "--mount", &point]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        Path::new("/proc").join(status["mounts"][0]["pid"].to_string())
    }

    fn signal(&self, signal: Signal) {
        let process = self.process();
        let id = process.file_name().unwrap().to_str().unwrap();
        kill_process(Pid::from_raw(id.parse().unwrap()).unwrap(), signal).unwrap();
    }

    /// Kills its process, and first the holder, which would start another.
    fn kill(&self) {
        let status = std::fs::read_to_string(self.process().join("status")).unwrap();
        let holder = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let holder = Pid::from_raw(holder.unwrap().trim().parse().unwrap()).unwrap();
        kill_process(holder, Signal::KILL).unwrap();
        self.signal(Signal::KILL);
    }

    /// The control socket of a mount of root.
    fn socket(&self) -> PathBuf {
        let device = std::fs::metadata(&self.0).unwrap().dev();
        PathBuf::from(format!(
            "/run/cachewfs/0-{}.sock",
            rustix::fs::minor(device)
        ))
    }
}

impl Drop for BackgroundMount {
    fn drop(&mut self) {
        if self.is_mounted() {
            rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
        }
    }
}

fn mount_point(site: &Site) -> PathBuf {
    let point = site.path().join("mnt");
    std::fs::create_dir_all(&point).unwrap();
    point
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_helper_returns_when_the_mount_works_and_serves_in_the_background() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();
    let cache = site.path().join("cache").display().to_string();
    // The options that mount(8) passes for a line of fstab.
    let options = format!("rw,allow_other,_netdev,nofail,hydrate=off,cache_dir={cache}");

    let mounted = helper(&site, &[&daemon.url(), &point, "-v", "-o", &options]);

    assert!(mounted.status.success(), "{}", stderr_of(&mounted));
    let status = run(&["status", "--json", "--mount", &point]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["mounts"][0]["mount_point"], point);
    let prefetched = run(&["prefetch", "local/project", "--mount", &point]);
    assert!(prefetched.status.success(), "{}", stderr_of(&prefetched));
    assert_eq!(
        git(mount.0.join("local/project"), &["rev-parse", "HEAD"]),
        git(&repo.work, &["rev-parse", "HEAD"])
    );

    let unmounted = run(&["umount", &point]);

    assert!(unmounted.status.success(), "{}", stderr_of(&unmounted));
    assert!(!mount.is_mounted());
    let process = Path::new("/proc").join(status["mounts"][0]["pid"].to_string());
    wait_until("the process in the background has ended", || {
        !process.exists()
    });
}

#[test]
fn mounting_again_is_enough_after_a_crash() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();
    let cache = format!("cache_dir={}", site.path().join("cache").display());
    let mount_it = || {
        let mounted = helper(&site, &[&daemon.url(), &point, "-o", &cache]);
        assert!(mounted.status.success(), "{}", stderr_of(&mounted));
    };
    let kill_it = || {
        mount.kill();
        wait_until("nobody serves the mount", || {
            std::fs::metadata(&point).is_err()
        });
    };

    mount_it();
    kill_it();
    mount_it();
    let socket = mount.socket();
    assert!(socket.exists());

    assert!(std::fs::read_dir(&point).is_ok());
    kill_it();
    let unmounted = run(&["umount", &point]);
    assert!(unmounted.status.success(), "{}", stderr_of(&unmounted));
    assert!(!mount.is_mounted());
    assert!(!socket.exists(), "the socket of the dead mount is there");
}

#[test]
fn signals_that_mean_nothing_to_it_do_not_end_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();
    let cache = format!("cache_dir={}", site.path().join("cache").display());
    let mounted = helper(&site, &["http://127.0.0.1:1", &point, "-o", &cache]);
    assert!(mounted.status.success(), "{}", stderr_of(&mounted));
    let warning = "cachewfs: mounted, but can't reach the daemon http://127.0.0.1:1: ";
    assert!(stderr_of(&mounted).starts_with(warning), "{mounted:?}");
    assert_eq!(stderr_of(&mounted).lines().count(), 1, "{mounted:?}");
    let process = mount.process();

    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::ALARM] {
        mount.signal(signal);
    }
    assert!(run(&["status", "--mount", &point]).status.success());
    mount.signal(Signal::QUIT);

    wait_until("the process in the background has ended", || {
        !process.exists()
    });
    assert!(!mount.is_mounted());
}

#[test]
fn a_mount_whose_daemon_is_away_comes_up_and_says_why() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let silent = Proxy::start(daemon.address());
    silent.set(Fault::Stall);
    let not_found = Proxy::start(daemon.address());
    not_found.set(Fault::Refused(404, "NoSuchKey"));
    let refused = free_address();
    let cache = format!("cache_dir={}", site.path().join("cache").display());
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();

    for (url, reason) in [
        (format!("http://{refused}"), "Connection refused"),
        (
            "http://nowhere.invalid:8080".to_owned(),
            "failed to lookup address",
        ),
        (silent.url(), "no daemon has answered within 1 s"),
        (not_found.url(), "no cachewfs daemon answers at this URL: "),
    ] {
        let mounted = helper(&site, &[&url, &point, "-o", &cache]);

        let said = stderr_of(&mounted);
        assert!(mounted.status.success(), "{said}");
        assert!(said.starts_with("cachewfs: mounted, but "), "{said}");
        assert!(said.contains(reason), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(mount.is_mounted());
        assert!(std::fs::read_dir(&point).is_ok());
        assert!(run(&["umount", &point]).status.success());
    }
}

#[test]
fn a_mount_comes_up_behind_a_firewall_that_drops_all_packets() {
    if !can_mount() {
        return;
    }
    let Some(network) = Network::create(1) else {
        return;
    };
    let address = network.local_address(1);
    network.cut(1, address);
    let site = Site::default();
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();
    let cache = format!("cache_dir={}", site.path().join("cache").display());
    let within = network.within(1);
    let (first, others) = within.split_first().unwrap();

    let mounted = Command::new(first)
        .args(others)
        .arg(binary("cachewfs"))
        .args([
            "mount",
            &format!("http://{address}:8080"),
            &point,
            "-o",
            &cache,
        ])
        .output()
        .unwrap();

    let said = stderr_of(&mounted);
    assert!(mounted.status.success(), "{said}");
    assert!(said.contains("no daemon has answered within 1 s"), "{said}");
    assert!(mount.is_mounted());
    assert!(run(&["umount", &point]).status.success());
}

#[test]
fn unknown_options_are_ignored_if_mount_is_told_to_be_sloppy() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mount = BackgroundMount(mount_point(&site));
    let point = mount.0.display().to_string();
    let cache = site.path().join("cache").display().to_string();
    let options = format!("rw,noexec,max_read=1,cache_dir={cache}");

    // As mount(8) calls it for the type cachewfs, then as mount.fuse3 does for fuse.cachewfs.
    let mounted = helper(&site, &["http://127.0.0.1:1", &point, "-s", "-o", &options]);
    assert!(mounted.status.success(), "{}", stderr_of(&mounted));
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let unmounted = run(&["umount", &point]);
    let again = run(&[
        "http://127.0.0.1:1",
        &point,
        "-o",
        &format!("cache_dir={cache}"),
    ]);

    let line = table.lines().find(|line| line.contains(&point)).unwrap();
    assert!(line.contains(" ro,nosuid,nodev,noexec,"), "{line}");
    assert!(unmounted.status.success(), "{}", stderr_of(&unmounted));
    assert!(again.status.success(), "{}", stderr_of(&again));
    assert!(mount.is_mounted());
}

#[test]
fn the_helper_reports_a_failed_mount_before_it_returns() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let point = mount_point(&site).display().to_string();
    let absent = site.path().join("absent").display().to_string();
    let cache = format!("cache_dir={}", site.path().join("cache").display());

    let typo = helper(
        &site,
        &["http://127.0.0.1:1", &point, "-o", "rw,cash_dir=/x"],
    );
    let not_http = helper(&site, &["ftp://127.0.0.1", &point]);
    let no_point = helper(&site, &["http://127.0.0.1:1", &absent, "-o", &cache]);

    assert_eq!(typo.status.code(), Some(2));
    assert!(
        stderr_of(&typo).contains("cash_dir=/x"),
        "{}",
        stderr_of(&typo)
    );
    assert_eq!(not_http.status.code(), Some(2));
    assert_eq!(no_point.status.code(), Some(1));
    assert!(
        stderr_of(&no_point).contains(&absent),
        "{}",
        stderr_of(&no_point)
    );
}
