//! Daemons that share a store: none of them undoes, damages or deletes a snapshot of another one.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cachewfs_daemon::{Config, Running};
use cachewfs_format::Manifest;
use cachewfs_tests::{SmallDisk, s3_bucket};
use futures_util::future::join_all;
use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::bucket;
use crate::support::gate::Gate;
use crate::support::lfs::{create_lfs_upstream, get_lfs_of, lfs, until_lfs_of};
use crate::support::test_daemon::*;

/// Another daemon that shares the store of a [`TestDaemon`].
struct Replica {
    running: Running,
    client: Client,
}

impl Replica {
    async fn start(daemon: &TestDaemon) -> Self {
        Self::start_with(daemon, |_| {}).await
    }

    async fn start_with(daemon: &TestDaemon, change: impl FnOnce(&mut Config)) -> Self {
        let root = daemon.root.path();
        let upstream = format!("file://{}", root.join("upstream").display());
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: tempfile::tempdir_in(root).unwrap().keep().into(),
            upstreams: [("git.example.com".to_owned(), upstream.into())].into(),
            fetch_interval: Duration::from_hours(1),
            ref_check_interval: Duration::from_hours(1),
            keep_snapshots: 2,
            ..Config::default()
        };
        config.store.directory = Some(root.join("data/store"));
        change(&mut config);
        Self {
            running: cachewfsd::daemon().start(config).await.unwrap(),
            client: Client::new(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address)
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    async fn post(&self, path: &str) -> Value {
        let response = self.client.post(self.url(path)).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn refresh(&self) -> Value {
        self.post(&format!("/git/{REPO}/refresh")).await
    }

    /// Publishes a new layout of the repository from the mirror of this daemon.
    async fn relayout(&self) -> Value {
        self.post(&format!("/api/v1/repos/{REPO}/relayout")).await
    }
}

/// Returns the commits of all snapshots in the store.
fn commits_published(daemon: &TestDaemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.store().join("snapshots")).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).to_str().unwrap().get(..40).unwrap().to_owned())
        .collect()
}

/// Makes `daemon` update its mirror to `commit`. Does not wait for the publish that follows.
async fn update(daemon: &TestDaemon, commit: &str) {
    let path = format!("/git/{REPO}/ensure-refs");
    let body = format!("{{\"commits\":[\"{commit}\"]}}");
    let answer = daemon.post(&path, body).await.text().await.unwrap();
    assert!(answer.contains("\"missing_commits\":[]"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_another_daemon_overtakes_is_abandoned() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join(".gitattributes"), "held* filter=gate\n");
    commit_and_push(&work, "one");
    daemon.refresh().await;
    // Without leases, the replica does not wait while another daemon publishes.
    let replica = Replica::start_with(&daemon, |config| config.store.lease_ttl = Duration::ZERO);
    let replica = replica.await;
    replica.refresh().await;
    let checkouts = gate.runs("checkout-index");
    gate.hold_checkout();
    write_file(&work.join("held"), "two");
    let second = commit_and_push(&work, "two");
    update(&daemon, &second).await;
    // The publish has begun, and waits at the gate.
    eventually(|| gate.runs("checkout-index") > checkouts).await;

    write_file(&work.join("held"), "three");
    let third = commit_and_push(&work, "three");
    assert_eq!(replica.refresh().await["snapshot"], third);
    gate.release_checkout();
    let after = daemon.refresh().await;

    assert_eq!(after["snapshot"], third);
    assert_eq!(after["moved"], false);
    assert!(!commits_published(&daemon).contains(&second));
    assert!(daemon.status().await["failure"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_behind_does_not_undo_a_newer_publish() {
    let other = "git.example.com/org/other";
    let (daemon, gate) = Gate::start(|config| config.publishes = 1).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let replica = Replica::start(&daemon).await;
    // A publish of another repository takes the only permit, so that no other can begin.
    let elsewhere = daemon.create_upstream_at("org/other", "elsewhere");
    write_file(&elsewhere.join(".gitattributes"), "held* filter=gate\n");
    write_file(&elsewhere.join("held"), "x");
    commit_and_push(&elsewhere, "x");
    let checkouts = gate.runs("checkout-index");
    gate.hold_checkout();
    let path = format!("/git/{other}/mirror.tar.zst");
    daemon.get(&path, &[("range", "bytes=-1")]).await;
    eventually(|| gate.runs("checkout-index") > checkouts).await;
    let second = commit_and_push(&work, "two");
    update(&daemon, &second).await;
    let third = commit_and_push(&work, "three");
    assert_eq!(replica.refresh().await["snapshot"], third);

    gate.release_checkout();
    let after = daemon.refresh().await;

    assert_eq!(after["snapshot"], third);
    assert!(!commits_published(&daemon).contains(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_commits_that_only_another_daemon_saw_are_kept() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let replica = Replica::start(&daemon).await;
    // Two pushes, so that the second commit is in an increment of its own.
    let mut dropped = Vec::new();
    for name in ["two", "three"] {
        write_file(&work.join(name), noise(name.len() as u64, 1000));
        dropped.push(commit_and_push(&work, name));
        replica.refresh().await;
    }
    git(&work, ["reset", "-q", "--hard", &first]);
    write_file(&work.join("four"), "four");
    let last = commit_and_push(&work, "four");

    assert_eq!(daemon.refresh().await["snapshot"], last);
    let path = format!("/api/v1/repos/{REPO}/relayout");
    assert_eq!(daemon.post(&path, "").await.status(), 200);

    let mirror = daemon.extract("mirror.tar.zst").await;
    git(&mirror, ["fsck", "--strict", "--no-dangling"]);
    for commit in dropped {
        git(&mirror, ["rev-list", "--objects", "--quiet", &commit]);
    }
    replica.relayout().await;
}

/// Makes all objects in the store look as if they had been written, or replaced, three days ago.
fn make_old(directory: &Path) {
    let pointer = directory.join("current");
    let mut current: Value = serde_json::from_slice(&fs::read(&pointer).unwrap()).unwrap();
    let replaced = current.get_mut("replaced").and_then(Value::as_array_mut);
    for replaced in replaced.into_iter().flatten() {
        replaced[1] = Value::from(replaced[1].as_u64().unwrap() - 3 * 24 * 3600);
    }
    write_file(&pointer, current.to_string());
    for part in ["segments", "snapshots"] {
        for entry in fs::read_dir(directory.join(part)).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            let days_ago = SystemTime::now() - Duration::from_hours(72);
            file.set_modified(days_ago).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_delete_old_objects_keep_each_others_snapshots() {
    let daemon = TestDaemon::start_with(|config| config.keep_snapshots = 2).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let replicas = [Replica::start(&daemon).await, Replica::start(&daemon).await];

    for round in 0..6_u64 {
        make_old(&daemon.store());
        // Two alternating contents. In each round, the store may still have the segments of this
        // content from two rounds ago, although no snapshot names them any more.
        write_file(&work.join("noise"), noise(round % 2, 100_000));
        commit_and_push(&work, "more");
        let publish = replicas.iter().map(Replica::refresh);
        tokio::join!(daemon.refresh(), join_all(publish));

        for snapshot in fs::read_dir(daemon.store().join("snapshots")).unwrap() {
            let manifest = fs::read(snapshot.unwrap().path()).unwrap();
            for layout in Manifest::parse(&manifest).unwrap().archives.values() {
                for segment in layout.segments.iter().chain([&layout.tail]) {
                    let id = segment.id.to_string();
                    assert!(daemon.store().join("segments").join(id).exists());
                }
            }
        }
    }

    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    let snapshots = fs::read_dir(daemon.store().join("snapshots"))
        .unwrap()
        .count();
    assert!(
        snapshots <= 5,
        "{snapshots} snapshots are left: none was deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_can_be_on_another_filesystem() {
    let Some(disk) = SmallDisk::mount("16m") else {
        return;
    };
    let daemon = TestDaemon::start_with(|config| {
        config.store.directory = Some(disk.path().join("store"));
    })
    .await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 100_000));
    commit_and_push(&work, "one");
    daemon.refresh().await;

    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    assert!(!daemon.root.path().join("data/store").exists());
    let left = fs::read_dir(disk.path().join("store/tmp")).unwrap().count();
    assert_eq!(left, 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lfs_archive_of_one_daemon_is_served_by_all() {
    let Some(bucket) = s3_bucket() else { return };
    let daemon =
        TestDaemon::start_with(|config| config.store.s3 = Some(bucket::config(&bucket))).await;
    let other = Replica::start_with(&daemon, |config| {
        config.store.directory = None;
        config.store.s3 = Some(bucket::config(&bucket));
    })
    .await;
    let work = create_lfs_upstream(&daemon);
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let of_first = get_lfs_of(&daemon, &first).await.bytes().await.unwrap();

    // Without the LFS objects of upstream, the other daemon can serve only the stored LFS archive.
    fs::remove_dir_all(daemon.upstream().join("lfs/objects")).unwrap();
    let served = other.get(&lfs()).await;
    assert_eq!(served.status(), 200);
    assert!(served.bytes().await.unwrap() == of_first);

    // The next LFS archive, by the other daemon, builds on this one.
    write_file(&work.join("new.bin"), noise(2, 100_000));
    let second = commit_and_push(&work, "two");
    assert_eq!(other.refresh().await["snapshot"], second);
    let of_second = until_lfs_of(&second, async || other.get(&lfs()).await).await;
    let etag = header(&of_second, "etag");
    let same = get_lfs_of(&daemon, &second).await;
    assert_eq!(header(&same, "etag"), etag);
    assert!(same.bytes().await.unwrap() == of_second.bytes().await.unwrap());
}
