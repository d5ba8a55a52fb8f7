//! Mounts and daemons that are killed at any moment work after a restart, without a repair step.

use std::process::{Command, Stdio};
use std::time::Duration;

use cachewfs_tests::{
    Fault, MountProcess, Proxy, Site, can_mount, git, run_with_deadline, try_git, wait_until,
};

#[test]
fn a_mount_killed_while_it_fetches_shows_nothing_wrong_afterwards() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let expected = git(
        &repo.upstream,
        &["rev-list", "--objects", "--branches", "--tags"],
    );
    for round in 0..5 {
        let mount = site.mount_with_options(&daemon.url(), "hydrate=all");
        let mounted = mount.repo("local/project");
        // Reads until the mount is killed. Its errors don't matter.
        let looking = std::thread::spawn(move || {
            let mut log = Command::new("git");
            log.args(["log", "--stat", "-p"]).current_dir(mounted);
            log.stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok();
        });
        wait_until("something is fetched", || mount.traffic("requests") > round);
        mount.kill();
        looking.join().unwrap();
    }

    let mount = site.mount(&daemon.url());

    let mounted = mount.repo("local/project");
    assert_eq!(
        git(&mounted, &["rev-list", "--objects", "--branches", "--tags"]),
        expected
    );
    assert!(try_git(&mounted, &["fsck", "--full"]).status.success());
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}

#[test]
fn a_daemon_killed_at_any_moment_catches_up_after_its_restart() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let mut daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    mount.cli(&["prefetch", "local/project"]);
    for number in 0..8 {
        repo.write("moving", format!("{number}\n").as_bytes());
        repo.commit(&format!("push {number}"));
        repo.push();
        // Kills the daemon at different points of its fetch, its packing and its publish.
        let moment = std::time::Instant::now() + Duration::from_millis(number * 130);
        wait_until("the moment has come", || {
            std::time::Instant::now() >= moment
        });
        daemon.kill();
        daemon.restart();
    }

    let commit = repo.commit("the last");
    repo.push();

    let seen = || git(&mounted, &["rev-parse", "HEAD"]).trim() == commit;
    wait_until("the mount shows the last push", seen);
    assert!(try_git(&mounted, &["fsck", "--full"]).status.success());
}

#[test]
fn a_mount_that_was_killed_can_be_mounted_over_again() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    site.mount(&daemon.url()).kill();

    let mut mount: MountProcess = site.mount(&daemon.url());

    assert_eq!(
        git(mount.repo("local/project"), &["status", "--porcelain"]),
        ""
    );
    assert_eq!(mount.terminate(), Some(0));
    assert!(!mount.is_mounted());
}

#[test]
fn umount_works_with_reads_pending_and_the_daemon_gone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mut mount = site.mount(&proxy.url());
    let mounted = mount.repo("local/project");
    git(&mounted, &["rev-parse", "HEAD"]);
    proxy.set(Fault::Stall);
    let reading = std::thread::spawn(move || try_git(&mounted, &["log", "-p"]));
    wait_until("a read is pending", || !reading.is_finished());

    let point = mount.point.clone();
    let output = run_with_deadline("umount", Duration::from_secs(20), move || {
        let point = point.display().to_string();
        cachewfs_tests::run(&["umount", &point])
    });

    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(mount.wait(), Some(0));
    assert!(!mount.is_mounted());
    assert!(!reading.join().unwrap().status.success());
    // The work for the read has ended, too: nobody waited for its deadline.
    let log = mount.log();
    assert!(!log.contains("did not end"), "{log}");
}

#[test]
fn plain_umount_ends_the_process() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mut mount = site.mount(&daemon.url());
    git(mount.repo("local/project"), &["log", "-1"]);

    let umount = Command::new("umount").arg(&mount.point).status().unwrap();

    assert!(umount.success());
    assert_eq!(mount.wait(), Some(0));
}

#[test]
fn a_mount_whose_connection_is_aborted_is_unmounted_and_says_why() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut mount = site.mount("http://127.0.0.1:1");
    let inside = std::fs::File::open(&mount.point).unwrap();

    // Aborts the connection, and then fails, because the mount is in use.
    let forced = rustix::mount::unmount(&mount.point, rustix::mount::UnmountFlags::FORCE);
    assert_eq!(forced, Err(rustix::io::Errno::BUSY));

    assert_eq!(mount.wait(), Some(1));
    assert!(!mount.is_mounted());
    assert!(mount.log().contains("aborted"), "{}", mount.log());
    drop(inside);
}

#[test]
fn a_new_mount_works_beside_an_old_one_that_is_still_in_use() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut old = site.mount("http://127.0.0.1:1");
    let pid = old.status()["pid"].clone();
    let inside = std::fs::File::open(&old.point).unwrap();
    rustix::mount::unmount(&old.point, rustix::mount::UnmountFlags::DETACH).unwrap();

    let mut new = site.mount("http://127.0.0.1:1");

    let point = new.point.display().to_string();
    let cache = site.path().join("cache").display().to_string();
    let options = format!("cache_dir={cache}");
    let third = ["mount", "-o", &options, "http://127.0.0.1:1", &point];
    let third = cachewfs_tests::run(&third);
    let complaint = String::from_utf8_lossy(&third.stderr);
    let serving = new.status()["pid"].clone();
    let expected = format!(
        "cachewfs: {point} is a cachewfs mount already of http://127.0.0.1:1 (process {serving})\n"
    );
    assert!(complaint.contains(&expected), "{complaint}");
    assert!(complaint.contains("cachewfs umount"), "{complaint}");
    assert_ne!(serving, pid);
    drop(inside);
    assert_eq!(old.wait(), Some(0));
    // The end of the old one took nothing from the new one.
    assert_ne!(new.status()["pid"], pid);
    assert_eq!(new.terminate(), Some(0));
    assert!(!new.is_mounted());
}

#[test]
fn of_two_mounts_that_start_at_one_place_at_the_same_moment_one_works() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let point = site.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let start = |number: u8| {
        let cache = site.path().join(format!("cache-{number}"));
        let mut mount = Command::new(cachewfs_tests::binary("cachewfs"));
        mount
            .args(["mount", "http://127.0.0.1:1"])
            .arg(&point)
            .arg("-o")
            .arg(format!("cache_dir={}", cache.display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };

    let started = [start(1), start(2)];
    let ended = started.map(|mount| mount.wait_with_output().unwrap());

    let shown = point.display().to_string();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table.matches(&format!(" {shown} ")).count();
    let unmounted = cachewfs_tests::run(&["umount", &shown]);
    assert_eq!(mounts, 1);
    assert!(unmounted.status.success());
    let failed = ended.iter().find(|mount| !mount.status.success());
    let complaint = String::from_utf8_lossy(&failed.unwrap().stderr);
    assert!(
        complaint.contains("is a cachewfs mount already"),
        "{complaint}"
    );
}
