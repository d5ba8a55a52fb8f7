//! `cachewfs clone`: an ordinary clone that borrows its objects from the mount.

use std::process::{Command, Stdio};
use std::time::Duration;

use cachewfs_tests::{
    Dice, Fault, GitRepo, Link, MountProcess, Proxy, Site, assert_index_checksum, binary,
    can_mount, git, git_with_input, run, try_git, wait_until, write_file,
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
    let repo = site.repo_with_history("project");
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
fn a_branch_or_a_tag_is_chosen_as_with_git() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let upstream = repo.upstream.display().to_string();

    for name in ["topic", "light", "v1"] {
        let [ours, gits] = ["ours", "gits"].map(|kind| site.path().join(kind).join(name));
        let [target, expected] = [&ours, &gits].map(|directory| directory.display().to_string());
        mount.cli(&["clone", "-b", name, "local/project", &target]);
        let plain = [
            "clone",
            "-q",
            "--no-local",
            "-b",
            name,
            &upstream,
            &expected,
        ];
        git(site.path(), &plain);

        for looking in [
            &["status", "--porcelain", "--branch"][..],
            &["for-each-ref"],
            &["symbolic-ref", "refs/remotes/origin/HEAD"],
            &["config", "--get-regexp", "^branch"],
        ] {
            let [ours, gits] = [&ours, &gits].map(|directory| try_git(directory, looking).stdout);
            assert_eq!(
                String::from_utf8_lossy(&ours),
                String::from_utf8_lossy(&gits),
                "{name}: {looking:?}"
            );
        }
    }
    let target = site.path().join("absent");
    let point = mount.point.display().to_string();
    let directory = target.display().to_string();
    let options = [
        "clone",
        "-b",
        "absent",
        "local/project",
        &directory,
        "--mount",
        &point,
    ];
    let said = String::from_utf8_lossy(&run(&options).stderr).into_owned();
    let expected = "cachewfs: local/project has no branch and no tag \"absent\"; its branches: ";
    assert!(said.starts_with(expected), "{said}");
    assert!(!target.exists());
}

#[test]
fn a_clone_waits_for_a_daemon_that_is_slower_than_a_lookup_may_be() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let slow = Link::start(daemon.address(), 100 << 20, Duration::from_millis(400));
    let url = format!("http://{}", slow.address());
    let mount = site.mount_with_options(&url, "hydrate=off,lookup_timeout=100ms");

    clone_of(&site, &mount, &repo);
}

#[test]
fn maintenance_of_a_clone_fetches_nothing_through_the_mount_and_rolls_up_packs() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = clone_of(&site, &mount, &repo);
    // Every `git fetch` starts maintenance. It runs in the foreground here, so that the test sees
    // its end.
    let fetch = ["-c", "maintenance.autoDetach=false", "fetch", "-q"];
    git(&clone, &fetch);
    let add_pack = |round: u32| {
        let commit = format!(
            "commit refs/heads/round-{round}\n\
             committer A <a@example.com> 1700000000 +0000\ndata 0\n"
        );
        let import = ["-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"];
        git_with_input(&clone, &import, commit.as_bytes());
        git(&clone, &fetch);
    };
    // The first fetch with a new commit reads the pack indexes in the mount.
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
    let mut repo = site.repo_with_history("project");
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
    let mut repo = site.repo_with_history("project");
    // A small repository may be fetched whole when it is first looked at.
    repo.write("large", &Dice::new(3).noise(8 << 20));
    repo.commit("a large file");
    repo.push();
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=5s");
    git(mount.repo("local/project"), &["rev-parse", "HEAD"]);
    let parent = site.path().join("parent");
    std::fs::create_dir_all(&parent).unwrap();
    proxy.set(Fault::Stall);
    let mut cloning = Command::new(binary("cachewfs"))
        .args(["clone", "local/project", "--mount"])
        .args([&mount.point, &parent.join("clone")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let entries = || std::fs::read_dir(&parent).unwrap().count();
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
    site.repo_with_history("project");
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
    let repo = site.repo_with_history("project");
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
    let needs = format!("of {point}/local/project, a repository in a cachewfs mount that is not");
    assert!(complaint.contains(&needs), "{complaint}");
    assert_eq!(without.status.code(), Some(3));
}

#[test]
fn a_copy_of_a_mounted_repository_says_that_it_has_no_objects() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let (mounted, copy) = (mount.repo("local/project"), site.path().join("copy"));
    let copied = Command::new("cp")
        .arg("-r")
        .args([&mounted, &copy])
        .status();
    assert!(copied.unwrap().success());
    let status = |directory| {
        let mut status = Command::new(binary("cachewfs"));
        status
            .arg("status")
            .current_dir(directory)
            .output()
            .unwrap()
    };

    let in_copy = status(&copy);

    // A copy of the packs would have fetched the whole history.
    assert!(!copy.join(".git/cachewfs").exists());
    let complaint = String::from_utf8_lossy(&in_copy.stderr).into_owned();
    assert!(complaint.contains("without its objects"), "{complaint}");
    assert_eq!(in_copy.status.code(), Some(1));
    assert!(status(&mounted).status.success());
    // The path of the hint.
    let objects = format!("{}/.git/cachewfs/objects\n", mounted.display());
    write_file(&copy.join(".git/objects/info/alternates"), objects);
    assert!(status(&copy).status.success());
    assert_eq!(git(&copy, &["status", "--porcelain"]), "");
}
