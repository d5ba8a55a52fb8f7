//! When mirrors are updated: after a start, under many requests, and while the daemon stops.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::gate::Gate;
use crate::support::http_upstream::*;
use crate::support::test_daemon::*;

/// How long a stop of the daemon may take in a test, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn name(number: usize) -> String {
    format!("git.example.com/org/r{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_spreads_updates_but_updates_a_requested_mirror_at_once() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    for number in 0..6 {
        let bare = daemon.root.path().join(format!("upstream/org/r{number}"));
        let (from, to) = (daemon.upstream(), bare.to_str().unwrap());
        git(&from, ["clone", "-q", "--bare", ".", to]);
        let path = format!("/git/{}/refresh", name(number));
        assert_eq!(daemon.post(&path, "").await.status(), 200);
    }
    let root = daemon.stop().await;
    let before = upstream.seen(&[]).len();

    let url = upstream.url();
    let daemon = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
    })
    .await;
    let path = format!("/git/{}/info/refs?service=git-upload-pack", name(4));
    assert_eq!(daemon.get(&path, &[]).await.status(), 200);

    let asked: Vec<_> = upstream.seen(&[]).split_off(before);
    assert!(!asked.is_empty());
    for seen in asked {
        assert!(seen.line.contains("/org/r4/"), "{}", seen.line);
    }

    let root = daemon.stop().await;
    let before = upstream.seen(&[]).len();
    let url = upstream.url();
    let _world = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
        config.fetch_interval = Duration::from_secs(2);
    })
    .await;

    eventually(|| {
        let asked = upstream.seen(&[]).split_off(before);
        let is_asked = |number| {
            let part = format!("/org/r{number}/");
            asked.iter().any(|seen| seen.line.contains(&part))
        };
        (0..6).all(is_asked)
    })
    .await;
}

fn mirror(daemon: &TestDaemon) -> PathBuf {
    daemon.root.path().join(format!("data/mirrors/{REPO}.git"))
}

/// Starts a daemon whose update of a mirror waits at the gate. Returns it with the commit of the
/// update.
async fn start_with_running_update(stop_timeout: Duration) -> (TestDaemon, Gate, String) {
    let (daemon, gate) = Gate::start(|config| config.mirrors.stop_timeout = stop_timeout).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    gate.close();
    write_file(&work.join("more"), "more");
    let head = commit_and_push(&work, "two");
    let before = gate.packs();
    let url = daemon.url(&format!("/git/{REPO}/refresh"));
    tokio::spawn(async move { reqwest::Client::new().post(url).send().await });
    eventually(|| gate.packs() > before).await;
    (daemon, gate, head)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_update_may_finish_while_the_daemon_stops() {
    let (daemon, gate, head) = start_with_running_update(LIMIT).await;
    let mirror = mirror(&daemon);

    daemon.running.shutdown.cancel();
    gate.open();
    let root = timeout(LIMIT, daemon.stop()).await.unwrap();

    assert_eq!(git(&mirror, ["rev-parse", "main"]), head);
    drop(root);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_outlasts_stop_timeout_is_killed_and_leaves_no_files() {
    let (daemon, gate, head) = start_with_running_update(Duration::from_millis(100)).await;
    let mirror = mirror(&daemon);

    let root = timeout(LIMIT, daemon.stop()).await.unwrap();
    gate.open();
    let daemon = TestDaemon::start_in(root, |_| {}).await;
    assert_eq!(daemon.refresh().await["snapshot"], head);

    git(&mirror, ["fsck", "--strict"]);
    let names = std::fs::read_dir(mirror.join("objects/pack")).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name());
    assert!(names.all(|name| !name.to_str().unwrap().starts_with("tmp_")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_daemon_does_not_wait_for_a_clone() {
    let (daemon, gate) = Gate::start(|config| config.mirrors.stop_timeout = 3 * LIMIT).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    gate.close();
    let url = daemon.url(&format!("/git/{REPO}/snapshot.tar.zst"));
    tokio::spawn(async move { reqwest::get(url).await });
    eventually(|| gate.packs() > 0).await;

    timeout(LIMIT, daemon.stop()).await.unwrap();
}
