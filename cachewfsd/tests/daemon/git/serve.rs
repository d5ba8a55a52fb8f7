//! Git clients that read from a mirror: stock git against a daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;

use crate::support::test_daemon::*;

const VERSIONS: [&str; 3] = [
    "protocol.version=0",
    "protocol.version=1",
    "protocol.version=2",
];

/// Starts a daemon with a mirror that does not check upstream. Returns it with the work tree.
async fn mirrored() -> (TestDaemon, PathBuf) {
    let daemon = TestDaemon::start_with(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let work = grown_upstream(&daemon);
    daemon.refresh().await;
    (daemon, work)
}

fn grown_upstream(daemon: &TestDaemon) -> PathBuf {
    let work = daemon.create_upstream();
    for number in 0..4 {
        write_file(&work.join(format!("dir/file{number}")), noise(number, 5000));
        commit_and_push(&work, &format!("commit {number}"));
    }
    git(&work, ["branch", "topic", "HEAD~2"]);
    git(&work, ["tag", "-a", "-m", "a tag", "v1", "HEAD~1"]);
    commit_and_push(&work, "last");
    work
}

/// Clones a repository from the daemon with stock git. This blocks the thread, so the test needs a
/// runtime with several threads.
fn clone(daemon: &TestDaemon, options: &[&str], name: &str) -> PathBuf {
    let to = tempfile::tempdir_in(daemon.root.path()).unwrap().keep();
    let url = daemon.url(&format!("/git/{name}"));
    let arguments = [options, &["clone", "-q", &url, to.to_str().unwrap()]].concat();
    git(daemon.root.path(), arguments);
    to
}

fn refs(repository: &Path) -> String {
    let format = "--format=%(objectname) %(refname:lstrip=-1)";
    git(repository, ["for-each-ref", format, "refs/tags"])
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_with_every_protocol_version_and_both_spellings() {
    let (daemon, work) = mirrored().await;
    // Without upstream, everything must come from the mirror.
    std::fs::rename(daemon.upstream(), daemon.root.path().join("gone")).unwrap();

    for version in VERSIONS {
        for spelling in [REPO.to_owned(), format!("{REPO}.git")] {
            let copy = clone(&daemon, &["-c", version], &spelling);

            git(&copy, ["fsck", "--strict"]);
            let head = |repository: &Path| git(repository, ["rev-parse", "HEAD"]);
            assert_eq!(head(&copy), head(&work), "{version} {spelling}");
            assert_eq!(refs(&copy), refs(&work));
            let topic = git(&copy, ["rev-parse", "origin/topic"]);
            assert_eq!(topic, git(&work, ["rev-parse", "topic"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_routed_with_instead_of() {
    let (daemon, work) = mirrored().await;
    let routed = format!(
        "url.{}.insteadOf=https://git.example.com/",
        daemon.url("/git/git.example.com/")
    );

    for url in [
        "https://git.example.com/org/repo",
        "https://git.example.com/org/repo.git",
    ] {
        let listed = git(
            daemon.root.path(),
            ["-c", &routed, "ls-remote", url, "HEAD"],
        );

        let head = git(&work, ["rev-parse", "HEAD"]);
        assert_eq!(listed, format!("{head}\tHEAD"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_clone_can_be_deepened() {
    let (daemon, work) = mirrored().await;

    let shallow = daemon.root.path().join("shallow");
    let url = daemon.url(&format!("/git/{REPO}"));
    git(
        daemon.root.path(),
        ["clone", "-q", "--depth=1", &url, shallow.to_str().unwrap()],
    );

    let count = |repository: &Path| git(repository, ["rev-list", "--count", "HEAD"]);
    assert_eq!(count(&shallow), "1");
    git(&shallow, ["fetch", "-q", "--deepen=2"]);
    assert_eq!(count(&shallow), "3");
    git(&shallow, ["fetch", "-q", "--unshallow"]);
    assert_eq!(count(&shallow), count(&work));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_clone_fetches_git_blobs_when_they_are_read() {
    let (daemon, work) = mirrored().await;
    let partial = daemon.root.path().join("partial");
    let url = daemon.url(&format!("/git/{REPO}"));
    let to = partial.to_str().unwrap();

    git(
        daemon.root.path(),
        [
            "clone",
            "-q",
            "--filter=blob:none",
            "--no-checkout",
            &url,
            to,
        ],
    );

    let missing = git(
        &partial,
        ["rev-list", "--objects", "--all", "--missing=print"],
    );
    assert_eq!(
        missing.lines().filter(|line| line.starts_with('?')).count(),
        4
    );
    git(&partial, ["checkout", "-q", "main"]);
    assert_eq!(
        std::fs::read(partial.join("dir/file3")).unwrap(),
        std::fs::read(work.join("dir/file3")).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_commit_can_be_fetched_by_its_id() {
    let (daemon, work) = mirrored().await;
    let unadvertised = git(&work, ["rev-parse", "HEAD~3"]);

    for version in VERSIONS {
        let copy = tempfile::tempdir_in(daemon.root.path()).unwrap();
        git(copy.path(), ["init", "-q"]);
        let url = daemon.url(&format!("/git/{REPO}"));
        git(
            copy.path(),
            ["-c", version, "fetch", "-q", &url, &unadvertised],
        );

        assert_eq!(git(copy.path(), ["rev-parse", "FETCH_HEAD"]), unadvertised);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_dropped_by_a_force_push_are_hidden_but_can_be_fetched() {
    let daemon = TestDaemon::start_with(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = grown_upstream(&daemon);
    daemon.refresh().await;
    let dropped = git(&work, ["rev-parse", "HEAD"]);
    git(&work, ["reset", "-q", "--hard", "HEAD~1"]);
    commit_and_push(&work, "instead");
    daemon.refresh().await;
    let url = daemon.url(&format!("/git/{REPO}"));

    for version in VERSIONS {
        let listed = git(daemon.root.path(), ["-c", version, "ls-remote", &url]);
        let copy = tempfile::tempdir_in(daemon.root.path()).unwrap();
        git(copy.path(), ["init", "-q"]);
        git(copy.path(), ["-c", version, "fetch", "-q", &url, &dropped]);

        assert!(
            !listed.contains("cachewfs") && !listed.contains(&dropped),
            "{listed}"
        );
        assert_eq!(git(copy.path(), ["rev-parse", "FETCH_HEAD"]), dropped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_upstream_is_seen_at_once_with_every_protocol_version() {
    let daemon = TestDaemon::start_with(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = grown_upstream(&daemon);
    daemon.refresh().await;
    let copy = clone(&daemon, &[], REPO);

    for version in VERSIONS {
        let pushed = commit_and_push(&work, version);
        git(&copy, ["-c", version, "fetch", "-q"]);

        assert_eq!(
            git(&copy, ["rev-parse", "origin/main"]),
            pushed,
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_interval_upstream_is_not_asked_again() {
    let (daemon, work) = mirrored().await;
    let before = git(&work, ["rev-parse", "HEAD"]);
    commit_and_push(&work, "unseen");
    let url = daemon.url(&format!("/git/{REPO}"));

    for version in VERSIONS {
        let listed = git(
            daemon.root.path(),
            ["-c", version, "ls-remote", &url, "HEAD"],
        );

        assert_eq!(listed, format!("{before}\tHEAD"), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_upstream_the_mirror_is_served_and_marked_as_stale() {
    let daemon = TestDaemon::start_with(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = grown_upstream(&daemon);
    daemon.refresh().await;
    let path = format!("/git/{REPO}/info/refs?service=git-upload-pack");
    let fresh = daemon.get(&path, &[]).await;
    std::fs::rename(daemon.upstream(), daemon.root.path().join("gone")).unwrap();

    let stale = daemon.get(&path, &[]).await;
    let copy = clone(&daemon, &[], REPO);

    assert_eq!(fresh.headers().get("x-cachew-stale"), None);
    assert_eq!(stale.status(), 200);
    assert_eq!(stale.headers()["x-cachew-stale"], "upstream_failed");
    assert!(stale.headers().contains_key("warning"));
    assert_eq!(
        git(&copy, ["rev-parse", "HEAD"]),
        git(&work, ["rev-parse", "HEAD"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_clone_from_a_local_upstream_is_served_from_its_directory() {
    let daemon = TestDaemon::start().await;
    let work = grown_upstream(&daemon);

    let copy = clone(&daemon, &[], &format!("{REPO}.git"));

    assert_eq!(
        git(&copy, ["rev-parse", "HEAD"]),
        git(&work, ["rev-parse", "HEAD"])
    );
    let missing = "/git/git.example.com/org/missing/info/refs?service=git-upload-pack";
    assert_eq!(daemon.get(missing, &[]).await.status(), 404);
    let push = format!("/git/{REPO}/info/refs?service=git-receive-pack");
    assert_eq!(daemon.get(&push, &[]).await.status(), 403);
    // The clone also made the daemon mirror the repository.
    let described = format!("/api/v1/repos/{REPO}");
    assert_eq!(
        daemon.request(Method::GET, &described, &[]).await.status(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn git_prints_why_a_push_to_a_local_upstream_is_refused() {
    let daemon = TestDaemon::start().await;
    let work = grown_upstream(&daemon);
    let url = daemon.url(&format!("/git/{REPO}"));

    let push = try_git(&work, &["push", &url, "HEAD:refs/heads/new"]);

    let said = String::from_utf8_lossy(&push.stderr).into_owned();
    let reason = "remote: upstream is a local directory of the daemon, which can't take this \
        request. Send the request to upstream directly. (upstream_is_local)";
    assert!(said.contains(reason), "{said}");
    // Programs get JSON.
    let asked = format!("/git/{REPO}/info/refs?service=git-receive-pack");
    let answer = daemon.get(&asked, &[]).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_updated_often_stays_served_from_few_packs_with_bitmaps() {
    let daemon = TestDaemon::start_with(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = grown_upstream(&daemon);
    daemon.refresh().await;
    let packs = daemon
        .root
        .path()
        .join("data/mirrors")
        .join(format!("{REPO}.git/objects/pack"));
    let count = |extension: &str| {
        let entries = std::fs::read_dir(&packs).unwrap().filter_map(Result::ok);
        let has = |path: &Path| path.extension().is_some_and(|found| found == extension);
        entries.filter(|entry| has(&entry.path())).count()
    };
    eventually(|| (count("pack"), count("bitmap")) == (1, 1)).await;
    // Adds 40 packs of one object each, as 40 updates would.
    let mirror = packs.parent().unwrap().parent().unwrap();
    for number in 0..40 {
        let object = daemon.root.path().join("object");
        write_file(&object, format!("{number}"));
        let id = git(&work, ["hash-object", "-w", object.to_str().unwrap()]);
        let pack = packs.join("pack");
        let pack_objects = ["pack-objects", "-q", pack.to_str().unwrap()];
        git_with_input(&work, &pack_objects, format!("{id}\n").as_bytes());
    }
    assert_eq!(count("pack"), 41);

    let head = commit_and_push(&work, "one more");
    daemon.refresh().await;
    let copy = clone(&daemon, &[], REPO);

    eventually(|| count("pack") < 5 && count("bitmap") == 1).await;
    git(
        mirror,
        ["-c", "safe.directory=*", "multi-pack-index", "verify"],
    );
    assert_eq!(git(&copy, ["rev-parse", "HEAD"]), head);
    git(&copy, ["fsck", "--strict"]);
}
