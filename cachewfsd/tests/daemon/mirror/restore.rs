//! Lost mirrors are restored from the store, with everything that was published.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use cachewfs_daemon::S3Config;
use cachewfs_tests::{Fault, Proxy, RecordingProxy, SmallDisk, s3_bucket, wait_until};
use tempfile::TempDir;

use crate::support::bucket;
use crate::support::gate::Gate;
use crate::support::test_daemon::*;

fn mirror_in(root: &Path) -> PathBuf {
    root.join(format!("data/mirrors/{REPO}.git"))
}

fn grow(work: &Path, commits: u64) -> String {
    for commit in 0..commits {
        write_file(
            &work.join(format!("src/{}", commit % 3)),
            noise(commit, 20_000),
        );
        git(work, ["add", "-A"]);
        git(work, ["commit", "-q", "-m", &format!("commit {commit}")]);
    }
    commit_and_push(work, "grown")
}

/// Replaces the newest commit of upstream by another one.
fn force_push(work: &Path, name: &str) -> String {
    git(work, ["reset", "-q", "--hard", "HEAD~1"]);
    write_file(&work.join(name), name);
    commit_and_push(work, name)
}

/// Adds 1500 tags, which don't fit into one segment with the other small files.
fn add_many_tags(repository: &Path) {
    let commands: Vec<String> = (0..1500)
        .map(|number| format!("create refs/tags/many/{number} main\n"))
        .collect();
    git_with_input(
        repository,
        &["update-ref", "--stdin"],
        commands.concat().as_bytes(),
    );
    git(repository, ["pack-refs", "--all"]);
}

/// Removes all directories of the data directory except the store.
fn lose_all_but_the_store(root: &Path) {
    for entry in fs::read_dir(root.join("data")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "store" && entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

/// Returns the file names of the packs of a snapshot.
fn packs_of(daemon: &TestDaemon, snapshot: &str) -> Vec<String> {
    let packs = daemon.manifest(snapshot).packs;
    packs.into_iter().map(|pack| pack.pack.name).collect()
}

async fn published(
    change: impl FnOnce(&mut cachewfs_daemon::Config),
) -> (TestDaemon, PathBuf, String) {
    let daemon = TestDaemon::start_with(change).await;
    let work = daemon.create_upstream();
    let head = grow(&work, 6);
    daemon.refresh().await;
    (daemon, work, head)
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_dropped_while_the_mirror_was_lost_stay_in_the_next_layout() {
    let (daemon, work, first_dropped) = published(|_| {}).await;
    let second_dropped = force_push(&work, "second");
    let snapshot = daemon.refresh().await["snapshot"]
        .as_str()
        .unwrap()
        .to_owned();
    let packs = packs_of(&daemon, &snapshot);
    let published_at = daemon.manifest(&snapshot).created_at;
    let root: TempDir = daemon.stop().await;
    fs::remove_dir_all(mirror_in(root.path())).unwrap();
    let head = force_push(&work, "third");

    let daemon = TestDaemon::start_in(root, |config| config.relayout_share = 0.0).await;
    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    let mirror = mirror_in(daemon.root.path());
    for pack in packs {
        assert!(mirror.join("objects/pack").join(pack).exists());
    }
    git(&mirror, ["fsck", "--strict"]);
    git(&mirror, ["commit-graph", "verify"]);
    for dropped in [&first_dropped, &second_dropped] {
        let retained = format!("refs/cachewfs/retained/{dropped}");
        assert_eq!(git(&mirror, ["rev-parse", &retained]), *dropped);
        assert_eq!(git(&clone, ["cat-file", "-t", dropped]), "commit");
    }
    // The restore kept the start of the retention: the time of the publish.
    let retained = mirror.join("refs/cachewfs/retained").join(&first_dropped);
    let since = fs::metadata(retained).unwrap().modified().unwrap();
    assert_eq!(since, UNIX_EPOCH + Duration::from_secs(published_at));
    assert_good_clone(&clone);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), head);
    let manifest = daemon.manifest(&head);
    let is_increment = |kind| kind == cachewfs_format::PackKind::Increment;
    assert!(manifest.packs.iter().all(|pack| !is_increment(pack.kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_cannot_be_restored_on_a_full_disk_is_not_cloned_instead() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let (daemon, work, _) = published(|_| {}).await;
    write_file(&work.join("large"), noise(1, 10 << 20));
    commit_and_push(&work, "large");
    daemon.refresh().await;
    force_push(&work, "small");
    daemon.refresh().await;
    let root = daemon.stop().await;

    let store = root.path().join("data/store");
    let daemon = TestDaemon::start_in(root, |config| {
        config.store.directory = Some(store);
        config.data_dir = disk.path().join("data").into();
    })
    .await;
    let refused = daemon.post(&format!("/git/{REPO}/refresh"), "").await;

    assert_eq!(code(refused).await, (507, "disk_full".to_owned()));
    assert!(
        !disk
            .path()
            .join(format!("data/mirrors/{REPO}.git"))
            .exists()
    );
    daemon.running.shutdown.cancel();
    daemon.running.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_replica_restores_from_the_store_and_fetches_the_rest() {
    for object_format in ["sha1", "sha256"] {
        let daemon = TestDaemon::start().await;
        let (bare, work) = (daemon.upstream(), daemon.root.path().join("work"));
        let format = format!("--object-format={object_format}");
        let (bare, made) = (bare.to_str().unwrap(), work.to_str().unwrap());
        let root = daemon.root.path();
        git(root, ["init", "-q", "--bare", "-b", "main", &format, bare]);
        // `git clone` of git 2.39 would ignore the object format of an empty repository.
        git(root, ["init", "-q", "-b", "main", &format, made]);
        git(&work, ["remote", "add", "origin", bare]);
        git(&work, ["commit", "-q", "--allow-empty", "-m", "zero"]);
        git(&work, ["tag", "-a", "v1", "-m", "one"]);
        let first = grow(&work, 4);
        if object_format == "sha1" {
            add_many_tags(&daemon.upstream());
        }
        daemon.refresh().await;
        let packs = packs_of(&daemon, &first);
        let root = daemon.stop().await;
        lose_all_but_the_store(root.path());
        write_file(&work.join("more"), "more");
        let head = commit_and_push(&work, "more");

        let daemon = TestDaemon::start_in(root, |_| {}).await;
        let served = daemon
            .get(&format!("/git/{REPO}/snapshot.tar.zst"), &[])
            .await;
        assert_eq!(served.headers()["x-cachew-snapshot-commit"], first);
        assert_eq!(daemon.refresh().await["snapshot"], head);

        let mirror = mirror_in(daemon.root.path());
        assert!(mirror.join("objects/pack").join(&packs[0]).exists());
        let refs = |repository: &Path| git(repository, ["show-ref"]);
        assert_eq!(refs(&mirror), refs(&daemon.upstream()));
        assert_eq!(git(&mirror, ["config", "gc.auto"]), "0");
        assert_eq!(packs_of(&daemon, &head).len(), packs.len() + 1);
        assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
        assert_eq!(
            fs::read_dir(daemon.root.path().join("data/tmp"))
                .unwrap()
                .count(),
            0
        );
    }
}

/// Returns the HEAD requests for segments.
fn segment_lookups(requests: &[String]) -> BTreeSet<&str> {
    let first_lines = requests.iter().filter_map(|head| head.lines().next());
    let looks = first_lines.filter(|line| line.starts_with("head "));
    looks.filter(|line| line.contains("/segments/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_restored_concurrently() {
    let Some(bucket) = s3_bucket() else { return };
    let s3 = bucket::config(&bucket);
    let (daemon, _, head) = published(|config| config.store.s3 = Some(s3.clone())).await;
    let root = daemon.stop().await;
    // The local copies of the pointer and the manifest remain.
    fs::remove_dir_all(mirror_in(root.path())).unwrap();
    let copies = root.path().join(format!("data/store/v1/{REPO}.git"));
    fs::remove_dir_all(copies.join("segments")).unwrap();
    let proxy = Proxy::start(bucket.address);
    let recorder = RecordingProxy::start(proxy.address());
    let endpoint = Some(recorder.url());
    let through = S3Config { endpoint, ..s3 };
    let daemon = TestDaemon::start_in(root, |config| config.store.s3 = Some(through)).await;

    // The bucket answers nothing now, so a daemon that restored one file after another would send
    // only one request.
    proxy.set(Fault::Stall);
    let asked_about_many = async {
        let wait = move || {
            wait_until("the bucket got requests for four segments", || {
                segment_lookups(&recorder.requests()).len() >= 4
            });
            proxy.set(Fault::None);
            (proxy, recorder)
        };
        tokio::task::spawn_blocking(wait).await.unwrap()
    };
    let (_proxy, refreshed) = tokio::join!(asked_about_many, daemon.refresh());

    assert_eq!(refreshed["snapshot"], head);
    let mirror = mirror_in(daemon.root.path());
    git(&mirror, ["fsck", "--strict"]);
    git(&mirror, ["commit-graph", "verify"]);
}

/// Flips a bit in the segment of the last pack of `manifest`. Returns the path of the segment.
fn damage(root: &Path, manifest: &cachewfs_format::Manifest) -> PathBuf {
    let pack = &manifest.packs.last().unwrap().pack;
    let id = pack.segment.id.to_string();
    let segments = root.join(format!("data/store/v1/{REPO}.git/segments"));
    let path = segments.join(id);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&path).unwrap();
    write_file(&path, bytes);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_replaced_by_one_of_a_new_clone() {
    let (daemon, _, head) = published(|_| {}).await;
    let manifest = daemon.manifest(&head);
    let root = daemon.stop().await;
    fs::remove_dir_all(mirror_in(root.path())).unwrap();
    let damaged = damage(root.path(), &manifest);
    let bytes = fs::read(&damaged).unwrap();

    let daemon = TestDaemon::start_in(root, |_| {}).await;
    let answer = daemon.refresh().await;

    assert_eq!(answer["moved"], true);
    assert_ne!(answer["snapshot"], head);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    git(&mirror_in(daemon.root.path()), ["fsck", "--strict"]);
    assert!(!damaged.exists() || fs::read(&damaged).unwrap() != bytes);
    assert_eq!(daemon.refresh().await["moved"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_not_restored_if_upstream_cannot_be_fetched() {
    let (daemon, _, head) = published(|_| {}).await;
    let root = daemon.stop().await;
    fs::remove_dir_all(mirror_in(root.path())).unwrap();
    let (upstream, away) = (root.path().join("upstream"), root.path().join("away"));
    fs::rename(&upstream, &away).unwrap();
    fs::create_dir_all(&upstream).unwrap();

    let daemon = TestDaemon::start_in(root, |config| {
        config.mirrors.retry_first = Duration::from_hours(1);
    })
    .await;
    let path = format!("/git/{REPO}/snapshot.tar.zst");
    let served = daemon.get(&path, &[]).await;
    assert_eq!(served.headers()["x-cachew-snapshot-commit"], head);
    let status = daemon
        .status_when(|status| !status["failure"].is_null())
        .await;

    assert_eq!(status["state"], "failed");
    assert_eq!(status["failure"]["code"], "upstream_not_found");
    assert!(!mirror_in(daemon.root.path()).exists());
    let tmp = daemon.root.path().join("data/tmp");
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 0);
    fs::remove_dir_all(&upstream).unwrap();
    fs::rename(&away, &upstream).unwrap();
    assert_eq!(daemon.refresh().await["moved"], false);
    assert_eq!(daemon.status().await["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fetch_after_a_restore_has_the_timeout_of_a_clone() {
    let limit = Duration::from_secs(2);
    let (daemon, gate) = Gate::start(|config| config.git.fetch_timeout = limit).await;
    let work = daemon.create_upstream();
    grow(&work, 2);
    daemon.refresh().await;
    let forget = format!("/api/v1/repos/{REPO}/forget");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    let head = commit_and_push(&work, "more");
    let packs = gate.packs();
    gate.close();

    let (refreshed, ()) = tokio::join!(daemon.refresh(), async {
        gate.wait_for_packs(packs + 1).await;
        tokio::time::sleep(2 * limit).await;
        gate.open();
    });

    assert_eq!(refreshed["snapshot"], head);
    assert_eq!(gate.packs(), packs + 1);
}
