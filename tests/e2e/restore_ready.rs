//! `cachewfs restore` without the history, and before the history is there.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cachewfs_tests::{
    DaemonProcess, Dice, GitRepo, Link, RecordingProxy, Site, git, run, said, try_git, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::restore::{archive_len, assert_success, relative, restore, staging, start};

/// A request for the end of an archive, with the TOC: 64 KiB. Then come HEAD with refs, the tables
/// of large segments, and the part of the pack of commits that has HEAD's.
const OVERHEAD: u64 = 128 << 10;

/// Makes an upstream whose history is much longer than HEAD: 16 files of 60 KiB in 4 versions.
fn repo_with_long_history(site: &Site) -> GitRepo {
    let mut repo = site.repo_of_files("project", (16, 60 << 10));
    let mut dice = Dice::new(2);
    for version in 0..3 {
        for number in 0..16 {
            repo.write(number.to_string(), &dice.noise(60 << 10));
        }
        repo.commit(&format!("Version {version}"));
    }
    repo.push();
    git(&repo.work, &["tag", "-a", "v1", "-m", "A tag", "HEAD^"]);
    git(
        &repo.work,
        &["push", "-q", "origin", "v1", "HEAD^:refs/heads/old"],
    );
    repo
}

fn restore_json(daemon: &str, target: &Path, options: &[&str]) -> Value {
    let output = restore(daemon, target, &[&["--json"], options].concat());
    assert_success(&output);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_shallow(clone: &Path) -> bool {
    git(clone, &["rev-parse", "--is-shallow-repository"]) == "true\n"
}

fn assert_works(clone: &Path) {
    assert_eq!(git(clone, &["status", "--porcelain"]), "");
    let fsck = try_git(clone, &["fsck", "--full", "--strict"]);
    assert!(fsck.status.success(), "{}", said(&fsck));
}

fn assert_like_a_clone(clone: &Path, (site, repo, name): (&Site, &GitRepo, &str)) {
    assert_works(clone);
    assert!(!is_shallow(clone));
    let plain = site.plain_clone(repo, name);
    for looking in [
        &["status", "--porcelain", "--branch"][..],
        &["for-each-ref"],
        &["log", "--oneline", "--all"],
        &["config", "--get-regexp", "^branch|^remote.origin.fetch"],
    ] {
        assert_eq!(git(clone, looking), git(&plain, looking), "{looking:?}");
    }
    assert_eq!(relative(clone), relative(&plain));
}

/// Waits until the daemon has published a change, and returns the option that asks for it.
fn newest(repo: &GitRepo) -> String {
    format!(
        "--ref=main={}",
        git(&repo.upstream, &["rev-parse", "main"]).trim()
    )
}

#[test]
fn without_the_history_a_restore_costs_a_shallow_clone() {
    let site = Site::default();
    let mut repo = repo_with_long_history(&site);
    let daemon = site.daemon();
    let total = archive_len(&daemon);
    let clone = site.path().join("restored");
    let proxy = RecordingProxy::start(daemon.address());

    let report = restore_json(&proxy.url(), &clone, &["--shallow"]);

    let plain = site.path().join("shallow");
    let url = format!("file://{}", repo.upstream.display());
    let arguments = [
        "clone",
        "-q",
        "--depth=1",
        &url,
        &plain.display().to_string(),
    ];
    git(site.path(), &arguments);
    let packs = std::fs::read_dir(plain.join(".git/objects/pack")).unwrap();
    let packs = packs.map(|file| file.unwrap().metadata().unwrap().len());
    let (shallow, fetched) = (packs.sum::<u64>(), proxy.answer_bytes());
    assert!(
        fetched <= shallow + OVERHEAD && shallow + OVERHEAD < total / 3,
        "{fetched} of {total} bytes, and git takes {shallow}"
    );
    assert_eq!(report["is_shallow"], true);
    assert!(report["ready_bytes"].as_u64().unwrap() <= fetched);
    assert!(is_shallow(&clone));
    assert_works(&clone);
    assert_eq!(relative(&clone), relative(&plain));
    for looking in [&["log", "--format=%H"][..], &["for-each-ref"]] {
        assert_eq!(git(&clone, looking), git(&plain, looking));
    }

    // It stays shallow, also if a file takes a state of the history again.
    git(&repo.work, &["checkout", "-q", "HEAD^", "--", "0"]);
    repo.commit("Take back a file");
    repo.push();
    restore_json(&daemon.url(), &clone, &["--shallow", &newest(&repo)]);
    assert!(is_shallow(&clone));
    assert_works(&clone);
    assert_eq!(relative(&clone), relative(&repo.work));
    let fresh = site.path().join("fresh");
    restore_json(&daemon.url(), &fresh, &["--shallow"]);
    assert_works(&fresh);
    assert_eq!(relative(&fresh), relative(&repo.work));

    let report = restore_json(&daemon.url(), &clone, &[]);
    assert_eq!(report["is_shallow"], false);
    assert_like_a_clone(&clone, (&site, &repo, "plain"));
}

/// A clone that `--wait ready` made over a slow link.
struct Ready {
    repo: GitRepo,
    daemon: DaemonProcess,
    link: Link,
    clone: PathBuf,
    background: Pid,
    site: Site,
}

impl Ready {
    fn new() -> Self {
        let site = Site::default();
        let repo = repo_with_long_history(&site);
        let daemon = site.daemon();
        archive_len(&daemon);
        let clone = site.path().join("restored");
        let link = Link::start(daemon.address(), 2 << 20, Duration::ZERO);
        let slow = format!("http://{}", link.address());

        let report = restore_json(&slow, &clone, &["--wait", "ready"]);

        let process = report["background_process"].as_i64().unwrap();
        assert_eq!(report["is_shallow"], true);
        Self {
            repo,
            daemon,
            link,
            clone,
            background: Pid::from_raw(i32::try_from(process).unwrap()).unwrap(),
            site,
        }
    }
}

#[test]
fn a_clone_is_ready_before_its_history_is_there() {
    let ready = Ready::new();
    // The history stands still while the test looks, and its process holds the lock.
    let note = staging(&ready.clone).join("repository");
    wait_until("the history is being fetched", || note.exists());
    kill_process(ready.background, Signal::STOP).unwrap();
    assert!(is_shallow(&ready.clone));
    assert_works(&ready.clone);
    // A person works meanwhile.
    git(&ready.clone, &["switch", "-q", "-c", "work"]);
    let slow = format!("http://{}", ready.link.address());

    let mut joining = start(&slow, &ready.clone, &["--force"]);
    let mut waiting = String::new();
    let messages = joining.stderr.as_mut().unwrap();
    BufReader::new(messages).read_line(&mut waiting).unwrap();
    kill_process(ready.background, Signal::CONT).unwrap();
    assert_success(&joining.wait_with_output().unwrap());

    assert!(waiting.contains("waiting for it"), "{waiting}");
    git(&ready.clone, &["branch", "-q", "-d", "work"]);
    assert_like_a_clone(&ready.clone, (&ready.site, &ready.repo, "plain"));
    let log = std::fs::read_to_string(ready.clone.join(".git/cachewfs-restore/log"));
    assert!(log.unwrap().contains("\"is_shallow\": false"));
}

#[test]
fn a_killed_history_is_taken_over() {
    let ready = Ready::new();
    kill_process(ready.background, Signal::KILL).unwrap();

    let mut state = String::new();
    wait_until("the history is there", || {
        let target = ready.clone.display().to_string();
        let url = format!("{}/git/local/project", ready.daemon.url());
        let output = run(&["restore", "--no-fetch", &url, &target]);
        assert_success(&output);
        state = said(&output);
        !is_shallow(&ready.clone)
    });

    assert!(state.contains("Updated"), "{state}");
    assert_like_a_clone(&ready.clone, (&ready.site, &ready.repo, "plain"));
}
