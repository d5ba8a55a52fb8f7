//! The mount helper `mount.cachewfs`, run as mount(8) runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cachewfs_tests::{Site, binary, can_mount, git, run, wait_until};
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
struct BackgroundMount(PathBuf);

impl BackgroundMount {
    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(&format!(" {} ", self.0.display()))
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
    assert_eq!(status["mount_point"], point);
    let prefetched = run(&["prefetch", "local/project", "--mount", &point]);
    assert!(prefetched.status.success(), "{}", stderr_of(&prefetched));
    assert_eq!(
        git(mount.0.join("local/project"), &["rev-parse", "HEAD"]),
        git(&repo.work, &["rev-parse", "HEAD"])
    );

    let unmounted = run(&["umount", &point]);

    assert!(unmounted.status.success(), "{}", stderr_of(&unmounted));
    assert!(!mount.is_mounted());
    let process = Path::new("/proc").join(status["pid"].to_string());
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
        let status = run(&["status", "--json", "--mount", &point]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let process = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
        wait_until("nobody serves the mount", || {
            std::fs::metadata(&point).is_err()
        });
    };

    mount_it();
    kill_it();
    mount_it();

    assert!(std::fs::read_dir(&point).is_ok());
    kill_it();
    let unmounted = run(&["umount", &point]);
    assert!(unmounted.status.success(), "{}", stderr_of(&unmounted));
    assert!(!mount.is_mounted());
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
