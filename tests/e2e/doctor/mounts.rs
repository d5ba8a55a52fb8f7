//! Dead mounts, full caches, and clones without objects.

use std::process::Command;

use cachewfs_tests::{Site, SmallDisk, binary, can_mount, git, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::{Findings, doctor};

/// Runs a command that `doctor` prints, with the program that is tested.
fn mend(found: &Findings, name: &str) {
    let command = found.of(name)["command"].as_str().unwrap();
    let program = binary("cachewfs").display().to_string();
    // Only the first of several: the test mounts by itself.
    let command = command.split(" && cachewfs mount ").next().unwrap();
    let command = command.replace("cachewfs umount", &format!("{program} umount"));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

#[test]
fn a_dead_mount_is_found_and_mended() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();
    let well = doctor(&site, &[&point]);
    assert_eq!((well.wrong(), well.code), (vec![], Some(0)), "{well:?}");
    assert_eq!(well.outcome("mount"), "ok");
    assert_eq!(well.outcome("daemon HTTP"), "ok");

    let pid = i32::try_from(mount.pid()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();

    wait_until("the mount is dead", || {
        doctor(&site, &[&point]).wrong() == ["mount"]
    });
    let dead = doctor(&site, &[&point]);
    dead.assert("mount", "wrong", "transport endpoint is not connected");
    let command = dead.of("mount")["command"].as_str().unwrap();
    let expected = format!(
        "cachewfs umount {point} && cachewfs mount {} {point}",
        daemon.url()
    );
    assert_eq!(command, expected);
    // Its daemons are in the mount table.
    assert_eq!(dead.outcome("daemon HTTP"), "ok");
    mend(&dead, "mount");
    assert!(!mount.is_mounted());
}

#[test]
fn a_full_cache_is_found() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let Some(disk) = SmallDisk::mount("64m") else {
        return;
    };
    let daemon = site.daemon();
    let cache = disk.path().join("cache").display().to_string();
    let options = format!("hydrate=off,cache_dir={cache}");
    let mount = site.mount_with_options(&daemon.url(), &options);
    let point = mount.point.display().to_string();
    let small = doctor(&site, &[&point]);
    small.assert("cache space", "warning", "a mount may fill it");
    assert_eq!(small.of("cache space")["subject"], cache.as_str());

    disk.fill();

    let full = doctor(&site, &[&point]);
    full.assert("cache space", "wrong", "the filesystem is full");
    assert_eq!(full.code, Some(1));
}

#[test]
fn clones_that_became_partial_or_lost_their_mount_are_found() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    git(
        &repo.upstream,
        &["config", "uploadpack.allowFilter", "true"],
    );
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();
    let clone = site.path().join("clone");
    let shown = clone.display().to_string();
    mount.cli(&["clone", "local/project", &shown]);
    let well = doctor(&site, &[&point]);
    well.assert("clone", "ok", "1 clone has its objects");

    git(&clone, &["fetch", "-q", "--filter=blob:none", "origin"]);

    let partial = doctor(&site, &[&point]);
    partial.assert("clone", "wrong", "it has become partial: ");
    assert_eq!(partial.of("clone")["subject"], shown.as_str());
    mend(&partial, "clone");
    let mended = doctor(&site, &[&point]);
    mended.assert("clone", "ok", "1 clone has its objects");
    git(&clone, &["fsck", "--connectivity-only"]);

    drop(mount);
    let lost = doctor(&site, &[&daemon.url(), "--clone", &shown]);
    lost.assert(
        "clone",
        "wrong",
        "local/project/.git/cachewfs/objects, which is not there",
    );
    let remedy = lost.of("clone")["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("mount it there again"), "{remedy}");
}
