//! `cachewfs clone` with options: some directories only, a ref that is waited for, JSON.

use std::path::Path;
use std::process::{Command, Stdio};

use cachewfs_tests::{
    DaemonProcess, Dice, GitRepo, RecordingProxy, Site, binary, can_mount, git, run, said, try_git,
    wait_until,
};
use serde_json::Value;

/// Bytes of files in [`repo_of_directories`].
const FILES_LEN: u64 = 20 << 20;

/// An upstream with 20 directories `d0`, `d1`, … of 8 files of 128 KiB each, and one at the top.
fn repo_of_directories(site: &Site) -> GitRepo {
    let mut repo = site.repo("project");
    for number in 0..160 {
        let name = format!("d{}/f{number}", number % 20);
        repo.write(name, &Dice::new(number).noise(128 << 10));
    }
    repo.write("top", b"top\n");
    repo.commit("files");
    repo.push();
    repo
}

/// Runs `cachewfs clone --json` for `local/project`, and returns what it prints.
fn clone_json(point: &Path, target: &Path, options: &[&str]) -> Value {
    let [point, directory] = [point, target].map(|path| path.display().to_string());
    let arguments = ["clone", "local/project", &directory, "--json"];
    let output = run(&[&arguments, options, &["--mount", &point]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_sparse_clone_fetches_only_its_directories() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = repo_of_directories(&site);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let sparse = site.path().join("sparse");

    let report = clone_json(&mount.point, &sparse, &["--sparse", "d3", "--sparse", "d4"]);

    // A tenth of the files in chunks of 1 MiB, the ends of the pack, and the index.
    let fetched = report["fetched_bytes"].as_u64().unwrap();
    assert!(fetched > FILES_LEN / 10, "{fetched}");
    assert!(fetched < FILES_LEN * 2 / 5, "{fetched} of {FILES_LEN}");
    let mut names: Vec<_> = std::fs::read_dir(&sparse)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".git", "d3", "d4", "top"]);
    assert_eq!(git(&sparse, &["status", "--porcelain"]), "");
    assert_eq!(git(&sparse, &["sparse-checkout", "list"]), "d3\nd4\n");
    assert_eq!(report["repo"], "local/project");
    assert_eq!(report["directory"], sparse.display().to_string());
    assert_eq!(report["branch"], "main");
    assert_eq!(report["sparse"], serde_json::json!(["d3", "d4"]));
    let commit = git(&repo.work, &["rev-parse", "HEAD"]);
    assert_eq!(report["commit"], commit.trim());

    git(&sparse, &["sparse-checkout", "add", "d5"]);
    assert!(sparse.join("d5/f5").exists());
    git(&sparse, &["sparse-checkout", "disable"]);
    assert_eq!(git(&sparse, &["status", "--porcelain"]), "");
    assert!(sparse.join("d9/f149").exists());

    let other = site.path().join("other").display().to_string();
    let said_of = |directory: &str| {
        let point = mount.point.display().to_string();
        let arguments = ["clone", "local/project", &other, "--sparse", directory];
        said(&run(&[&arguments[..], &["--mount", &point]].concat()))
    };
    let absent = said_of("absent");
    assert!(
        absent.contains("HEAD has no directory \"absent\"\n"),
        "{absent}"
    );
    assert!(Path::new(&other).join("top").exists());
    std::fs::remove_dir_all(&other).unwrap();
    let outside = said_of("../outside");
    assert!(outside.contains("git sparse-checkout failed"), "{outside}");
    assert!(!Path::new(&other).exists());
}

#[test]
fn a_clone_without_checkout_fetches_no_file() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    repo_of_directories(&site);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let target = site.path().join("clone");

    let report = clone_json(&mount.point, &target, &["--no-checkout"]);

    let fetched = report["fetched_bytes"].as_u64().unwrap();
    assert!(fetched < 1 << 20, "{fetched}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    git(&target, &["checkout", "-q"]);
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
}

#[test]
fn a_clone_waits_for_a_ref() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let keys = "fetch_interval = \"1h\"\n";
    let directory = site.path().join("daemon");
    let daemon = DaemonProcess::start_with_config(&directory, &site.upstreams(), (keys, ""));
    let proxy = RecordingProxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,poll_interval=1h");
    let old = git(mount.repo("local/project"), &["rev-parse", "HEAD"]);
    git(&repo.work, &["switch", "-q", "-c", "feature/x"]);
    repo.write("newer", b"newer");
    let newest = repo.commit("Add a newer file").trim().to_owned();
    let target = site.path().join("clone");
    let point = mount.point.display().to_string();
    let wanted = format!("feature/x={newest}");
    let mut clone = Command::new(binary("cachewfs"));
    clone
        .args(["clone", "local/project", &target.display().to_string()])
        .args(["--branch", "feature/x", "--ref", &wanted])
        .args(["--mount", &point]);

    // The daemon's upstream doesn't have the branch yet.
    let cloning = clone.stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the daemon was asked", || {
        let requests = proxy.requests();
        requests.iter().any(|head| head.contains("ensure-refs"))
    });
    git(&repo.work, &["push", "-q", "origin", "feature/x"]);
    let output = cloning.wait_with_output().unwrap();

    assert!(output.status.success(), "{}", said(&output));
    assert_ne!(newest, old.trim());
    assert_eq!(git(&target, &["rev-parse", "HEAD"]).trim(), newest);
    let branch = git(&target, &["symbolic-ref", "HEAD"]);
    assert_eq!(branch, "refs/heads/feature/x\n");
    assert!(try_git(&target, &["fsck"]).status.success());

    let similar = ["clone", "-b", "feature/y", "local/project", "none"];
    let output = run(&[&similar[..], &["--mount", &point]].concat());
    let expected = "has no branch and no tag \"feature/y\"; similar names: \"feature/x\"\n";
    assert!(said(&output).contains(expected), "{}", said(&output));
    let bad = ["clone", "--ref", "a..b", "local/project", "none"];
    assert_eq!(run(&bad).status.code(), Some(2));
}
