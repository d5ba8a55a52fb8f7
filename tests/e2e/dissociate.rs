//! `cachewfs dissociate`: a clone that no longer needs its mount.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cachewfs_tests::{
    Dice, Fault, MountProcess, Proxy, Site, binary, can_mount, git, run, said, try_git, wait_until,
    write_file,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn clone_of(site: &Site, mount: &MountProcess) -> PathBuf {
    let directory = site.path().join("clone");
    mount.cli(&["clone", "local/project", &directory.display().to_string()]);
    directory
}

fn dissociate(clone: &Path, options: &[&str]) -> String {
    let directory = clone.display().to_string();
    let output = run(&[&["dissociate", &directory], options].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Returns the names in the clone's directory of packs.
fn packs(clone: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(clone.join(".git/objects/pack")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_dissociated_clone_works_without_its_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount);
    let linked = site.path().join("linked");
    let add = [
        "worktree",
        "add",
        "-q",
        &linked.display().to_string(),
        "topic",
    ];
    git(&clone, &add);
    write_file(&clone.join("new"), "new");
    git(&clone, &["add", "new"]);
    git(&clone, &["stash", "-q"]);
    git(&clone, &["config", "gc.pruneExpire", "never"]);
    let history = |directory: &Path| git(directory, &["log", "-p", "--all"]);
    let (before, refs) = (history(&clone), git(&clone, &["for-each-ref"]));

    let preview = json(&dissociate(&clone, &["--dry-run", "--json"]));
    assert!(packs(&clone).is_empty());
    let expected: u64 = std::fs::read_dir(mount.packs("local/project"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(preview["copied_bytes"], expected);
    assert_eq!(preview["is_dry_run"], true);
    // Also from a linked work tree.
    let said_here = dissociate(&linked, &[]);
    assert!(said_here.starts_with("Copying "), "{said_here}");
    assert!(
        said_here.ends_with(" no longer needs the mount\n"),
        "{said_here}"
    );
    drop(mount);

    assert!(!clone.join(".git/objects/info/alternates").exists());
    for directory in [&clone, &linked] {
        assert_eq!(git(directory, &["status", "--porcelain"]), "");
        let fsck = try_git(directory, &["fsck", "--full", "--no-dangling"]);
        assert!(fsck.status.success(), "{}", said(&fsck));
    }
    assert_eq!(history(&clone), before);
    assert_eq!(git(&clone, &["for-each-ref"]), refs);
    git(&clone, &["stash", "pop", "-q"]);
    git(&clone, &["commit", "-q", "-m", "new"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["push", "-q", "origin", "HEAD:refs/heads/new"]);
    assert!(try_git(&repo.upstream, &["fsck"]).status.success());
    // It is an ordinary clone: git maintains it again, and a person's settings stay.
    let config = std::fs::read_to_string(clone.join(".git/config")).unwrap();
    assert!(
        !config.contains("cachewfs mount") && !config.contains("auto"),
        "{config}"
    );
    assert!(config.contains("pruneExpire = never"), "{config}");

    let again = run(&["dissociate", &clone.display().to_string()]);
    assert_eq!(again.status.code(), Some(1));
    let expected = "is in no clone that borrows objects from a cachewfs mount\n";
    assert!(said(&again).contains(expected), "{}", said(&again));
}

#[test]
fn a_mount_forgets_a_dissociated_clone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount);
    let clones = || mount.status()["repos"][0]["clones"].clone();
    assert_eq!(clones()[0], clone.display().to_string());

    let report = json(&dissociate(&clone, &["--json"]));

    assert_eq!(clones(), serde_json::json!([]));
    assert_eq!(report["directory"], clone.display().to_string());
    let from = &report["repositories"][0]["borrowed_from"][0];
    assert_eq!(*from, mount.repo("local/project").display().to_string());
    let mounted = mount.repo("local/project");
    let refused = run(&["dissociate", &mounted.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
}

/// Starts to dissociate a clone while the daemon is silent, and waits until a copy has begun.
fn start(clone: &Path) -> Child {
    // A killed process has left some.
    let before = packs(clone);
    let child = Command::new(binary("cachewfs"))
        .args(["dissociate", &clone.display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("a copy has begun", || {
        packs(clone)
            .iter()
            .any(|name| name.starts_with("tmp_") && !before.contains(name))
    });
    child
}

#[test]
fn a_dissociation_that_ends_early_leaves_a_clone_that_works() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    // So that the packs are not fetched whole when they are first looked at.
    for round in 0..3 {
        repo.write("large", &Dice::new(round).noise(4 << 20));
        repo.commit("a large file");
    }
    repo.push();
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=60s");
    let clone = clone_of(&site, &mount);
    let works = || {
        assert!(clone.join(".git/objects/info/alternates").exists());
        let fsck = try_git(&clone, &["fsck", "--connectivity-only"]);
        assert!(fsck.status.success(), "{}", said(&fsck));
    };

    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(1))] {
        proxy.set(Fault::Stall);
        let child = start(&clone);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), code, "{}", said(&ended));
        proxy.set(Fault::None);
    }
    works();

    dissociate(&clone, &[]);
    drop(mount);

    assert!(packs(&clone).iter().all(|name| name.starts_with("pack-")));
    let fsck = try_git(&clone, &["fsck", "--full"]);
    assert!(fsck.status.success(), "{}", said(&fsck));
}
