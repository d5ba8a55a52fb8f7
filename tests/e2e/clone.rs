//! `cachewfs clone`: an ordinary clone that borrows.

use std::process::{Command, Stdio};

use cachewfs_tests::{
    Dice, Fault, GitRepo, MountProcess, Proxy, Site, assert_index_checksum, binary, can_mount, git,
    git_fed, run, try_git, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::packs;

fn clone_of(site: &Site, mount: &MountProcess, repo: &GitRepo) -> std::path::PathBuf {
    let directory = site.path().join("clone");
    mount.cli(&["clone", "local/project", &directory.display().to_string()]);
    let url = repo.upstream.display().to_string();
    assert_eq!(
        git(&directory, &["remote", "get-url", "origin"]).trim(),
        format!("file://{url}")
    );
    directory
}

#[test]
fn a_clone_is_ready_and_everything_works_in_it() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.grown_repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());

    let clone = clone_of(&site, &mount, &repo);

    assert_eq!(
        git(&clone, &["status", "--porcelain", "--branch"]),
        "## main...origin/main\n"
    );
    assert_eq!(packs(&clone.join(".git/objects/pack")), 0);
    let heads = [
        "for-each-ref",
        "--format=%(objectname)",
        "refs/remotes/origin/topic",
    ];
    let upstream = ["for-each-ref", "--format=%(objectname)", "refs/heads/topic"];
    assert_eq!(git(&clone, &heads), git(&repo.upstream, &upstream));
    assert!(try_git(&clone, &["fsck", "--full"]).status.success());
    assert_index_checksum(&clone.join(".git"));

    // An object that is written here is the clone's own, even if the mount has it: upstream may
    // drop it later.
    let id = git(&clone, &["hash-object", "-w", "empty"]);
    let (directory, name) = id.trim().split_at(2);
    assert!(
        clone
            .join(".git/objects")
            .join(directory)
            .join(name)
            .exists()
    );

    git(&clone, &["switch", "-q", "-c", "work"]);
    std::fs::remove_file(clone.join("empty")).unwrap();
    git(&clone, &["commit", "-q", "-a", "-m", "remove a file"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["push", "-q", "origin", "work"]);
    git(&clone, &["fetch", "-q"]);
    assert!(try_git(&clone, &["fsck", "--full"]).status.success());
    let pushed = git(&repo.upstream, &["rev-parse", "work"]);
    assert_eq!(pushed, git(&clone, &["rev-parse", "HEAD"]));
}

#[test]
fn the_maintenance_of_a_clone_reads_nothing_of_the_mount_and_keeps_it_small() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.grown_repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount, &repo);
    // Starts maintenance, as each fetch does.
    let fetch = ["-c", "maintenance.autoDetach=false", "fetch", "-q"];
    git(&clone, &fetch);
    let add_pack = |round: u32| {
        let commit = format!(
            "commit refs/heads/round-{round}\ncommitter A <a@example.com> 1700000000 +0000\ndata 0\n"
        );
        let import = ["-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"];
        git_fed(&clone, &import, commit.as_bytes());
        git(&clone, &fetch);
    };
    // The first one looks for objects in the indexes of the mount.
    add_pack(0);
    let before = mount.traffic("fetched_bytes");

    for round in 1..15 {
        add_pack(round);
    }

    assert_eq!(mount.traffic("fetched_bytes"), before);
    let packs = packs(&clone.join(".git/objects/pack"));
    assert!((1..14).contains(&packs), "{packs} packs");
    assert!(try_git(&clone, &["fsck", "--full"]).status.success());
}

#[test]
fn a_force_push_upstream_breaks_no_clone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.grown_repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount, &repo);
    let old = git(&clone, &["rev-parse", "HEAD"]);

    git(&repo.work, &["reset", "-q", "--hard", "HEAD~10"]);
    repo.write("other", b"another history\n");
    let new = repo.commit("another history");
    repo.push();
    wait_until("the mount shows the new history", || {
        git(mount.repo("local/project"), &["rev-parse", "HEAD"]).trim() == new
    });

    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), old);
    assert!(try_git(&clone, &["fsck", "--full"]).status.success());
    git(&clone, &["log", "-p"]);
    git(&clone, &["fetch", "-q"]);
    assert_eq!(git(&clone, &["rev-parse", "origin/main"]).trim(), new);
    // The new objects are borrowed as well.
    assert_eq!(packs(&clone.join(".git/objects/pack")), 0);
}

#[test]
fn a_clone_that_is_interrupted_leaves_nothing() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.grown_repo("project");
    // The first look at a repository may fetch all of a small one.
    repo.write("large", &Dice::new(3).noise(8 << 20));
    repo.commit("a large file");
    repo.push();
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with(&proxy.url(), "hydrate=off,read_timeout=5s");
    git(mount.repo("local/project"), &["rev-parse", "HEAD"]);
    let place = site.path().join("place");
    std::fs::create_dir_all(&place).unwrap();
    proxy.set(Fault::Stall);
    let mut cloning = Command::new(binary("cachewfs"))
        .args(["clone", "local/project", "--mount"])
        .args([&mount.point, &place.join("clone")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let entries = || std::fs::read_dir(&place).unwrap().count();
    wait_until("the clone has begun", || entries() > 0);

    let process = Pid::from_raw(cloning.id().try_into().unwrap()).unwrap();
    kill_process(process, Signal::TERM).unwrap();

    assert_eq!(cloning.wait().unwrap().code(), Some(1));
    assert_eq!(entries(), 0);
}

#[test]
fn a_directory_that_is_in_use_is_left_alone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.grown_repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();
    let used = site.path().join("used");
    std::fs::create_dir_all(used.join("mine")).unwrap();

    let used_name = used.display().to_string();
    let refused = run(&["clone", "local/project", &used_name, "--mount", &point]);
    let absent_name = site.path().join("absent").display().to_string();
    let missing = run(&["clone", "local/absent", &absent_name, "--mount", &point]);

    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(&used).unwrap().count(), 1);
    assert_eq!(
        missing.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&missing.stderr)
    );
    assert!(!site.path().join("absent").exists());
}

#[test]
fn a_clone_without_its_mount_says_which_mount_it_needs() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.grown_repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount, &repo);
    let point = mount.point.display().to_string();
    let status = || {
        let mut status = Command::new(binary("cachewfs"));
        status.arg("status").current_dir(&clone).output().unwrap()
    };

    let with_mount = status();
    drop(mount);
    let without = status();

    // Other tests run mounts at the same time, but this clone needs one of them.
    let shown = String::from_utf8_lossy(&with_mount.stdout).into_owned();
    assert!(shown.starts_with(&format!("{point} from ")), "{shown}");
    let complaint = String::from_utf8_lossy(&without.stderr).into_owned();
    let needs =
        format!("from local/project in the cachewfs mount at {point}, which is not mounted");
    assert!(complaint.contains(&needs), "{complaint}");
    assert_eq!(without.status.code(), Some(3));
}
