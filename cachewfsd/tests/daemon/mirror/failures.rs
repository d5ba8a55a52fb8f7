//! Failures to clone or update a mirror: their errors, and when the daemon retries.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cachewfs_daemon::Config;
use cachewfs_tests::SmallDisk;
use serde_json::Value;

use crate::support::http_upstream::*;
use crate::support::test_daemon::*;

const SNAPSHOT: &str = "/git/git.example.com/org/repo/snapshot.tar.zst";

fn no_retry(config: &mut Config) {
    config.mirrors.retry_first = Duration::from_hours(1);
}

fn has_failed(status: &Value) -> bool {
    !status["failure"].is_null()
}

/// Requests a snapshot, and waits until the daemon has tried and failed. Returns the failure.
async fn failure(daemon: &TestDaemon) -> Value {
    daemon.get(SNAPSHOT, &[]).await;
    daemon.status_when(has_failed).await["failure"].clone()
}

async fn snapshot_error(daemon: &TestDaemon) -> (u16, String) {
    let response = daemon.get(SNAPSHOT, &[]).await;
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clone_is_answered_at_once_and_not_retried_during_its_backoff() {
    let (daemon, upstream) = start_behind_http(no_retry).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    upstream.set(UpstreamMode::Fails);
    let failure = failure(&daemon).await;
    let tried = upstream.seen(&[]).len();

    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(
            snapshot_error(&daemon).await,
            (502, "upstream_failed".to_owned())
        );
    }

    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(upstream.seen(&[]).len(), tried);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(failure["code"], "upstream_failed");
    assert_eq!(failure["tries"], 1);
    assert!(failure["since"].as_u64().unwrap() <= now.as_secs());
    assert!(failure["next_try_at"].as_u64().unwrap() > now.as_secs() + 1800);
    assert!(failure["message"].as_str().unwrap().contains("failed"));
    let status = daemon.status().await;
    assert_eq!(status["state"], "failed");
    let list = daemon.get("/api/v1/repos", &[]).await.text().await.unwrap();
    let mut list: Value = serde_json::from_str(&list).unwrap();
    let mut listed = list["repos"][0]["failure"].take();
    let times = [&failure, &listed].map(|failure| failure["next_try_at"].as_u64().unwrap());
    // The daemon computes it from the remaining time in whole seconds, so it may differ by one.
    assert!(times[0].abs_diff(times[1]) <= 1, "{times:?}");
    listed["next_try_at"] = times[0].into();
    assert_eq!(listed, failure);

    upstream.set(UpstreamMode::Good);
    daemon.refresh().await;

    let status = daemon.status().await;
    assert_eq!(status["state"], "ready");
    assert!(!has_failed(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clone_is_retried_without_a_request() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.mirrors.retry_first = Duration::from_millis(50);
        config.mirrors.retry_max = Duration::from_millis(200);
    })
    .await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    upstream.set(UpstreamMode::Fails);
    failure(&daemon).await;
    daemon
        .status_when(|status| status["failure"]["tries"].as_u64() > Some(3))
        .await;

    upstream.set(UpstreamMode::Good);

    let status = daemon
        .status_when(|status| status["state"] == "ready")
        .await;
    assert!(!has_failed(&status) || status["published"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_of_a_failed_clone_has_a_code() {
    for (mode, status, code) in [
        (UpstreamMode::Good, 404, "upstream_not_found"),
        (UpstreamMode::Denies, 403, "upstream_denied"),
        (UpstreamMode::Fails, 502, "upstream_failed"),
        (UpstreamMode::Hangs, 504, "upstream_timeout"),
    ] {
        let (daemon, upstream) = start_behind_http(|config| {
            no_retry(config);
            config.git.clone_timeout = Duration::from_millis(500);
        })
        .await;
        upstream.set(mode);

        assert_eq!(failure(&daemon).await["code"], code);
        assert_eq!(snapshot_error(&daemon).await, (status, code.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_a_listener_is_unreachable() {
    let daemon = TestDaemon::start_with(|config| {
        no_retry(config);
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", closed.local_addr().unwrap());
        config.upstreams = [("git.example.com".to_owned(), base.into())].into();
    })
    .await;

    assert_eq!(failure(&daemon).await["code"], "upstream_unreachable");
    assert_eq!(
        snapshot_error(&daemon).await,
        (502, "upstream_unreachable".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_unknown_upstream_is_forgotten_if_no_request_follows() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.mirrors.retry_first = Duration::from_millis(1500);
    })
    .await;
    assert_eq!(failure(&daemon).await["code"], "upstream_not_found");
    let tried = upstream.seen(&[]).len();

    let url = format!("/api/v1/repos/{REPO}");
    answer_with(404, async || daemon.get(&url, &[]).await).await;

    assert_eq!(upstream.seen(&[]).len(), tried);
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_names_fill_neither_memory_nor_the_log_of_upstream() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.mirrors.max_new = 3;
        config.mirrors.retry_first = Duration::from_millis(100);
    })
    .await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let forget = format!("/api/v1/repos/{REPO}/forget");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    upstream.set(UpstreamMode::Hangs);
    let made_up = |number: usize| format!("/git/git.example.com/made/up{number}");
    let ask = async |number| {
        let path = made_up(number) + "/mirror.tar.zst";
        code(daemon.get(&path, &[("range", "bytes=-1")]).await).await
    };

    for number in 0..3 {
        assert_eq!(ask(number).await.1, "snapshot_not_ready");
    }
    for number in 3..100 {
        assert_eq!(ask(number).await, (503, "too_many_new".to_owned()));
    }
    let refs = made_up(3) + "/info/refs?service=git-upload-pack";
    assert_eq!(code(daemon.get(&refs, &[]).await).await.1, "too_many_new");
    // Published snapshots are still served.
    assert_eq!(daemon.get(SNAPSHOT, &[]).await.status(), 200);
    assert!(upstream.seen(&["/made/up3"]).is_empty());
    upstream.set(UpstreamMode::Good);

    until(async || {
        let (_, code) = ask(3).await;
        if code == "too_many_new" {
            Err(code)
        } else {
            Ok(())
        }
    })
    .await;
}

/// Returns a change of the configuration: the data directory is on `disk`.
fn on_disk(disk: &SmallDisk) -> impl FnOnce(&mut Config) {
    |config| {
        no_retry(config);
        config.data_dir = disk.path().join("data").into();
    }
}

async fn failure_to_clone_a_large_repository(daemon: &TestDaemon) -> Value {
    let work = daemon.create_upstream();
    write_file(&work.join("large"), noise(1, 4 << 20));
    commit_and_push(&work, "one");
    failure(daemon).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_reported_as_a_failure_of_upstream() {
    let Some(disk) = SmallDisk::mount("2m") else {
        return;
    };
    let daemon = TestDaemon::start_with(on_disk(&disk)).await;

    let failure = failure_to_clone_a_large_repository(&daemon).await;

    assert_eq!(failure["code"], "disk_full", "{failure}");
    assert_eq!(snapshot_error(&daemon).await, (507, "disk_full".to_owned()));
    daemon.running.shutdown.cancel();
    daemon.running.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_on_a_full_disk_is_not_taken_for_a_damaged_mirror() {
    let Some(disk) = SmallDisk::mount("2m") else {
        return;
    };
    let (daemon, upstream) = start_behind_http(on_disk(&disk)).await;

    let failure = failure_to_clone_a_large_repository(&daemon).await;

    assert_eq!(failure["code"], "disk_full", "{failure}");
    // One listing of refs and one request for a pack. A damaged mirror would be cloned again at
    // once.
    let asked = upstream.seen(&["POST", "git-upload-pack"]).len();
    assert_eq!(asked, 2);
    daemon.running.shutdown.cancel();
    daemon.running.stopped().await;
}
