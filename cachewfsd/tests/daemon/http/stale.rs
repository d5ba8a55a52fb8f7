//! Stale snapshots: served at once, and replaced in the background.

use std::time::Duration;

use cachewfs_daemon::Config;
use reqwest::Method;
use serde_json::Value;

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

const COMMIT: &str = "x-cachew-snapshot-commit";

/// Waits until `commit` is current. Uses HEAD requests, which start neither checks nor updates.
async fn wait_until_current(daemon: &TestDaemon, commit: &str) {
    until(async || {
        let head = daemon.request(Method::HEAD, &stable(), &[]).await;
        let current = header(&head, COMMIT);
        if current == commit {
            Ok(())
        } else {
            Err(current)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_snapshot_is_served_at_once_and_replaced_in_the_background() {
    let (daemon, gate) = Gate::start(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = daemon.create_upstream();
    let old = commit_and_push(&work, "old");
    daemon.refresh().await;
    let new = commit_and_push(&work, "new");
    gate.close();

    // Although upstream sends no pack, all requests get the old snapshot.
    for _ in 0..20 {
        let response = daemon.get(&stable(), &[("range", "bytes=0-99")]).await;
        assert_eq!(response.status(), 206);
        assert_eq!(header(&response, COMMIT), old);
    }
    gate.wait_for_packs(2).await;
    gate.open();

    wait_until_current(&daemon, &new).await;
    // One pack for the first clone, and one for the fetch that all requests share.
    assert_eq!(gate.packs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_ask_upstream_at_most_once_per_interval() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "old");
    daemon.refresh().await;
    let before = gate.runs("ls-remote");

    for _ in 0..20 {
        assert_eq!(daemon.get(&stable(), &[]).await.status(), 200);
    }
    daemon.refresh().await;

    assert!(before > 0);
    assert_eq!(gate.runs("ls-remote"), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_repository_is_not_published_again() {
    let (daemon, gate) = Gate::start(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "old");
    daemon.refresh().await;
    let (checks, built) = (gate.runs("ls-remote"), gate.runs("pack-objects"));

    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while gate.runs("ls-remote") < checks + 5 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the daemon did not check upstream"
        );
        assert_eq!(daemon.get(&stable(), &[]).await.status(), 200);
    }

    assert_eq!(gate.runs("pack-objects"), built);
    assert_eq!(daemon.refresh().await["snapshot"], head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_does_not_block_published_snapshots() {
    let (daemon, _gate) = Gate::start(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "old");
    daemon.refresh().await;
    std::fs::rename(daemon.upstream(), daemon.root.path().join("away")).unwrap();

    for _ in 0..20 {
        assert_eq!(daemon.get(&stable(), &[]).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_publish_is_retried_without_a_request() {
    let daemon = TestDaemon::start_with(|config| {
        config.mirrors.retry_first = Duration::from_millis(50);
        config.mirrors.retry_max = Duration::from_millis(200);
    })
    .await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let second = commit_and_push(&work, "two");
    let blocked_publish = BlockedPublish::after_update(&daemon).await;
    let tries = |status: &Value| status["failure"]["tries"].as_u64();
    let failing = daemon.status_when(|status| tries(status) > Some(2)).await;
    assert_eq!(failing["failure"]["code"], "publish_failed");

    drop(blocked_publish);

    wait_until_current(&daemon, &second).await;
    daemon
        .status_when(|status| status["failure"].is_null())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_was_missing_at_the_stop_is_done_after_a_restart() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let second = commit_and_push(&work, "two");
    let blocked_publish = BlockedPublish::after_update(&daemon).await;
    let root = daemon.stop().await;
    drop(blocked_publish);

    // No push and no request follow. Only the periodic update can publish the commit.
    let interval = |config: &mut Config| config.fetch_interval = Duration::from_millis(100);
    let daemon = TestDaemon::start_in(root, interval).await;

    wait_until_current(&daemon, &second).await;
}
