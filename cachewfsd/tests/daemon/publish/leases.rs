//! Leases: daemons that share a store take turns to publish. They are processes of their own, which
//! the tests kill and suspend.

use std::path::{Path, PathBuf};

use cachewfs_tests::{DaemonProcess, TestBucket, s3_bucket};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::gate::Gate;
use crate::support::process::start_process;
use crate::support::test_daemon::*;

/// A lease that never expires during a test.
const LONG: &str = "1h";

/// An upstream, and the store that all daemons share.
struct Cluster {
    root: TempDir,
    work: PathBuf,
    /// The `[store]` section of the configuration.
    store: String,
}

impl Cluster {
    fn create(lease_ttl: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("store");
        let store = format!("directory = '{}'\n", directory.display());
        Self::with_store(
            root,
            &format!("[store]\nlease_ttl = '{lease_ttl}'\n{store}"),
        )
    }

    fn in_bucket(bucket: &TestBucket) -> Self {
        let store = format!(
            "[store.s3]\nbucket = '{}'\nendpoint = '{}'\ncredentials_file = '{}'\n",
            bucket.name,
            bucket.endpoint,
            bucket.credentials.display()
        );
        Self::with_store(tempfile::tempdir().unwrap(), &store)
    }

    fn with_store(root: TempDir, store: &str) -> Self {
        let bare = root.path().join("upstream/org/repo.git");
        let work = create_upstream(&bare, root.path().join("work"));
        write_file(&work.join(".gitattributes"), "held* filter=gate\n");
        let store = store.to_owned();
        Self { root, work, store }
    }

    /// Pushes a commit with a file whose checkout each gate can block.
    fn push(&self, content: &str) -> String {
        write_file(&self.work.join("held"), content);
        commit_and_push(&self.work, content)
    }

    fn start(&self, name: &'static str) -> Replica {
        let root = self.root.path();
        let (gate, git_config) = Gate::create(root.join(format!("{name}-gate")));
        let upstream = root.join("upstream");
        let config = format!(
            "publish_delay = '0s'\nfetch_interval = '1h'\nref_check_interval = '1h'\n\
             upstreams = {{ 'git.example.com' = 'file://{}' }}\n{}\n[git]\nconfig_file = '{}'\n",
            upstream.display(),
            self.store,
            git_config.display(),
        );
        let process = start_process(&root.join(name), &config, &[]);
        Replica { process, gate }
    }

    /// Pushes a first commit, and starts two daemons, which both have it afterwards.
    async fn start_two(&self, first: &str) -> (Replica, Replica) {
        self.push(first);
        let (one, other) = (self.start("one"), self.start("other"));
        one.refresh().await;
        other.refresh().await;
        (one, other)
    }

    fn pointer(&self) -> Value {
        let path = format!("store/v1/{REPO}.git/current");
        serde_json::from_slice(&std::fs::read(self.root.path().join(path)).unwrap()).unwrap()
    }

    fn lease(&self) -> PathBuf {
        let path = format!("store/v1/{REPO}.git/lease");
        self.root.path().join(path)
    }
}

/// A daemon with a gate of its own.
struct Replica {
    process: DaemonProcess,
    gate: Gate,
}

impl Replica {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.process.url())
    }

    /// Requests an update and a publish. The caller awaits the response later.
    fn begin_refresh(&self) -> JoinHandle<Value> {
        let url = self.url(&format!("/git/{REPO}/refresh"));
        tokio::spawn(async move {
            let response = Client::new().post(url).send().await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            assert!(status.is_success(), "{status}: {text}");
            serde_json::from_str(&text).unwrap()
        })
    }

    async fn refresh(&self) -> Value {
        self.begin_refresh().await.unwrap()
    }

    /// Begins a publish that can't end before the caller releases the checkout.
    async fn begin_held_publish(&self) -> JoinHandle<Value> {
        let checkouts = self.gate.runs("checkout-index");
        self.gate.hold_checkout();
        let refresh = self.begin_refresh();
        eventually(|| self.gate.runs("checkout-index") > checkouts).await;
        refresh
    }

    /// Begins a publish as [`Self::begin_held_publish`] does, and one of `other`, which waits for
    /// it. Returns both.
    async fn hold_up(&self, other: &Self) -> (JoinHandle<Value>, JoinHandle<Value>) {
        let held = self.begin_held_publish().await;
        let waiting = other.begin_refresh();
        other.wait_until_it_waits().await;
        (held, waiting)
    }

    async fn job(&self) -> Value {
        let url = self.url(&format!("/api/v1/repos/{REPO}"));
        let text = Client::new().get(url).send().await.unwrap();
        let status: Value = serde_json::from_str(&text.text().await.unwrap()).unwrap();
        status["job"].clone()
    }

    /// Waits until the publish of this daemon waits for that of another one.
    async fn wait_until_it_waits(&self) {
        let job = until(async || {
            let job = self.job().await;
            if job["waits_for"].is_string() {
                Ok(job)
            } else {
                Err(job)
            }
        });
        assert_eq!(job.await["class"], "publish");
    }

    /// Returns how many snapshots this daemon has published.
    fn published(&self) -> usize {
        self.process.log().matches("Published ").count()
    }

    async fn count(&self, event: &str) -> u64 {
        let text = Client::new()
            .get(self.url("/metrics"))
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        let sample = format!("cachewfsd_leases_total{{event=\"{event}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&sample));
        line.unwrap_or_else(|| panic!("no {sample} in {text}"))
            .parse()
            .unwrap()
    }

    /// Downloads and extracts the archive. Returns its commit and its directory.
    async fn extract(&self, root: &Path) -> (String, PathBuf) {
        let response = Client::new().get(self.url(&stable())).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let commit = response.headers().get("x-cachew-snapshot-commit").cloned();
        let commit = commit.map_or_else(String::new, |it| it.to_str().unwrap().to_owned());
        (commit, untar(&response.bytes().await.unwrap(), root))
    }
}

/// Checks that only one of two daemons publishes if both are asked to refresh after a push.
async fn one_publishes(cluster: &Cluster) {
    let (one, other) = cluster.start_two("0").await;

    let second = cluster.push("1");
    let (held, refresh) = one.hold_up(&other).await;
    one.gate.release_checkout();
    assert_eq!(held.await.unwrap()["moved"], true);
    let unchanged = refresh.await.unwrap();
    assert_eq!(unchanged["snapshot"], second);
    assert_eq!(unchanged["moved"], false);
    assert_eq!(other.extract(cluster.root.path()).await.0, second);
    assert_eq!((one.published(), other.published()), (2, 0));
    assert_eq!(other.count("waited").await, 1);
    assert_eq!(other.count("acquired").await, 0);

    // Without a gate, either daemon may publish.
    for round in 2..6 {
        let commit = cluster.push(&round.to_string());
        let (left, right) = tokio::join!(one.refresh(), other.refresh());
        assert_eq!(
            (&left["snapshot"], &right["snapshot"]),
            (&commit.clone().into(), &commit.into())
        );
        assert_eq!(one.published() + other.published(), round + 1);
    }
    assert_eq!(one.count("lost").await + other.count("lost").await, 0);
    assert_eq!(one.count("failed").await + other.count("failed").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_daemons_on_a_directory_publishes() {
    one_publishes(&Cluster::create(LONG)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_daemons_on_a_bucket_publishes() {
    let Some(bucket) = s3_bucket() else { return };
    one_publishes(&Cluster::in_bucket(&bucket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_daemon_serves_git_clients_and_then_publishes_newer_commits() {
    let cluster = Cluster::create(LONG);
    let (one, other) = cluster.start_two("1").await;
    cluster.push("2");
    let (held, refresh) = one.hold_up(&other).await;

    let third = cluster.push("3");
    let body = format!("{{\"commits\":[\"{third}\"]}}");
    let url = other.url(&format!("/git/{REPO}/ensure-refs"));
    let answer = Client::new().post(url).body(body).send().await.unwrap();
    let answer = answer.text().await.unwrap();
    assert!(answer.contains("\"missing_commits\":[]"), "{answer}");
    other.wait_until_it_waits().await;
    assert!(!refresh.is_finished());
    one.gate.release_checkout();
    held.await.unwrap();

    assert_eq!(refresh.await.unwrap()["snapshot"], third);
    assert_eq!((one.published(), other.published()), (2, 1));
    assert_eq!(cluster.pointer()["fence"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_a_first_snapshot_gets_that_of_another_daemon() {
    let cluster = Cluster::create(LONG);
    let first = cluster.push("1");
    let (one, other) = (cluster.start("one"), cluster.start("other"));
    let held = one.begin_held_publish().await;

    // The daemon starts a response after a short wait, and streams the archive later.
    let response = Client::new()
        .get(other.url(&stable()))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    other.wait_until_it_waits().await;
    one.gate.release_checkout();
    held.await.unwrap();

    let clone = untar(&response.bytes().await.unwrap(), cluster.root.path());
    assert_good_clone(&clone);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), first);
    assert_eq!((one.published(), other.published()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_takes_over_the_publish_of_a_killed_daemon() {
    let cluster = Cluster::create("1s");
    let (one, other) = cluster.start_two("1").await;
    let second = cluster.push("2");
    let (held, refresh) = one.hold_up(&other).await;

    one.process.signal(Signal::KILL);

    let taken_over = refresh.await.unwrap();
    assert_eq!(taken_over["snapshot"], second);
    assert_eq!(taken_over["moved"], true);
    assert_eq!(other.count("taken_over").await, 1);
    assert!(held.await.is_err(), "the killed daemon answered");
    one.gate.release_checkout();
    drop(one);
    let one = cluster.start("one");
    assert_eq!(one.refresh().await["moved"], false);
    assert_good_clone(&one.extract(cluster.root.path()).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_takes_over_its_own_lease_at_once() {
    let cluster = Cluster::create(LONG);
    cluster.push("1");
    let one = cluster.start("one");
    let held = one.begin_held_publish().await;
    one.process.signal(Signal::KILL);
    assert!(held.await.is_err(), "the killed daemon answered");
    one.gate.release_checkout();
    drop(one);

    let one = cluster.start("one");

    assert_eq!(one.refresh().await["moved"], true);
    assert_eq!(one.count("taken_over").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_daemon_overwrites_nothing_when_it_resumes() {
    let cluster = Cluster::create("1s");
    let (one, other) = cluster.start_two("1").await;
    let second = cluster.push("2");
    let held = one.begin_held_publish().await;
    one.process.signal(Signal::STOP);
    assert_eq!(other.refresh().await["snapshot"], second);
    let third = cluster.push("3");
    assert_eq!(other.refresh().await["snapshot"], third);
    let current = cluster.pointer();
    assert_eq!(current["fence"], 4);

    one.gate.release_checkout();
    one.process.signal(Signal::CONT);

    let after = held.await.unwrap();
    assert_eq!(after["snapshot"], third);
    assert_eq!(after["moved"], false);
    assert_eq!(cluster.pointer(), current);
    assert_eq!((one.published(), other.published()), (1, 2));
    assert_eq!(one.count("lost").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_daemon_can_forget_the_repository_and_stop() {
    let cluster = Cluster::create(LONG);
    cluster.push("1");
    let (one, mut other) = (cluster.start("one"), cluster.start("other"));
    let (held, forgotten) = one.hold_up(&other).await;

    let url = other.url(&format!("/api/v1/repos/{REPO}/forget"));
    let answer = Client::new().post(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    assert!(forgotten.await.is_err(), "the refresh succeeded");
    let ended = other.begin_refresh();
    other.wait_until_it_waits().await;
    other.process.terminate();

    assert!(ended.await.is_err(), "the refresh succeeded");
    one.gate.release_checkout();
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_lease_blocks_no_publish() {
    let cluster = Cluster::create(LONG);
    cluster.push("1");
    let one = cluster.start("one");
    one.refresh().await;
    assert_eq!(cluster.pointer()["fence"], 1);
    write_file(&cluster.lease(), "garbage");

    let second = cluster.push("2");
    assert_eq!(one.refresh().await["snapshot"], second);

    assert_eq!(one.count("failed").await, 1);
    assert_eq!(cluster.pointer()["fence"], 1);
    assert_eq!(std::fs::read(cluster.lease()).unwrap(), b"garbage");
}
