//! Mirrors that are removed because they are unused or because an operator forgets them, and the
//! other calls for operators.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::test_daemon::*;

const SNAPSHOT: &str = "/git/git.example.com/org/repo/snapshot.tar.zst";

fn mirror(daemon: &TestDaemon) -> PathBuf {
    daemon.root.path().join(format!("data/mirrors/{REPO}.git"))
}

fn tmp_is_empty(daemon: &TestDaemon) -> bool {
    let tmp = fs::read_dir(daemon.root.path().join("data/tmp")).unwrap();
    tmp.count() == 0
}

async fn published(
    change: impl FnOnce(&mut cachewfs_daemon::Config),
) -> (TestDaemon, PathBuf, String) {
    let daemon = TestDaemon::start_with(change).await;
    let work = daemon.create_upstream();
    for number in 0..4 {
        write_file(&work.join("file"), noise(number, 50_000));
        commit_and_push(&work, "more");
    }
    daemon.refresh().await;
    write_file(&work.join("file"), "one");
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, work, head)
}

/// Sends a call for operators. Returns the status and the response.
async fn call_as_operator(daemon: &TestDaemon, action: &str) -> (u16, Value) {
    let response = daemon
        .post(&format!("/api/v1/repos/{REPO}/{action}"), "")
        .await;
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_mirror_is_removed_and_restored_on_the_next_use() {
    let (daemon, _, head) = published(|config| {
        config.mirrors.remove_unused_after = Duration::from_secs(4);
        config.fetch_interval = Duration::from_millis(100);
    })
    .await;
    let mirror = mirror(&daemon);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let head = daemon.request(reqwest::Method::HEAD, SNAPSHOT, &[]).await;
        assert_eq!(head.status(), 200);
        assert!(mirror.exists(), "the mirror was removed while it was used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    eventually(|| !mirror.exists() && tmp_is_empty(&daemon)).await;

    // A request to the API does not count as a use of the mirror.
    let status = daemon.status().await;
    assert_eq!(status["published"]["snapshot"], head);
    let list = daemon.get("/api/v1/repos", &[]).await;
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["repos"].as_array().unwrap().len(), 1);
    let listed = list["repos"][0].as_object().unwrap();
    assert!(listed.iter().all(|(key, value)| status[key] == *value));
    assert_eq!(status["state"], "empty");
    assert!(!mirror.exists());
    let served = daemon.get(SNAPSHOT, &[]).await;
    assert_eq!(served.headers()["x-cachew-snapshot-commit"], head);
    eventually(|| mirror.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_survives_restarts_and_is_not_written_for_each_request() {
    let (daemon, _, head) = published(|_| {}).await;
    let used = mirror(&daemon).join("cachewfs-used");
    eventually(|| used.exists()).await;
    // The next use must fall into a later second than the recorded one.
    let written = used.metadata().unwrap().modified().unwrap();
    eventually(|| SystemTime::now() > written + Duration::from_secs(1)).await;
    let long_ago = SystemTime::now() - Duration::from_hours(24 * 29);
    File::options()
        .write(true)
        .open(&used)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    for _ in 0..50 {
        daemon.get(SNAPSHOT, &[("range", "bytes=0-10")]).await;
    }
    daemon.refresh().await;
    let when = || used.metadata().unwrap().modified().unwrap();
    assert!(when() < SystemTime::now() - Duration::from_hours(24));
    let root = daemon.stop().await;
    assert!(
        when() > SystemTime::now() - Duration::from_mins(1),
        "the daemon records the last use when it stops"
    );

    let mut root = root;
    for (days, stays) in [(29, true), (31, false)] {
        let long_ago = SystemTime::now() - Duration::from_hours(24 * days);
        File::create(&used).unwrap().set_modified(long_ago).unwrap();
        let daemon = TestDaemon::start_in(root, |config| {
            config.fetch_interval = Duration::from_millis(200);
        })
        .await;
        if stays {
            daemon
                .status_when(|status| !status["updated_at"].is_null())
                .await;
            assert!(mirror(&daemon).exists());
        } else {
            eventually(|| !mirror(&daemon).exists()).await;
        }
        root = daemon.stop().await;
    }
    let store = root.path().join(format!("data/store/v1/{REPO}.git"));
    assert!(store.join("snapshots").join(head).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_publish_relayout_and_forget() {
    let (daemon, work, first) = published(|config| config.relayout_share = 1.0).await;
    let is_increment = |kind| kind == cachewfs_format::PackKind::Increment;
    let manifest = daemon.manifest(&first);
    assert!(manifest.packs.iter().any(|pack| is_increment(pack.kind)));

    let still = call_as_operator(&daemon, "publish").await;
    assert_eq!(still, (200, json!({"snapshot": first, "moved": false})));
    write_file(&work.join("file"), "two");
    let second = commit_and_push(&work, "two");
    let moved = call_as_operator(&daemon, "publish").await;
    assert_eq!(moved, (200, json!({"snapshot": second, "moved": true})));
    let (status, anew) = call_as_operator(&daemon, "relayout").await;
    assert_eq!((status, &anew["moved"]), (200, &json!(true)));
    let manifest = daemon.manifest(anew["snapshot"].as_str().unwrap());
    assert!(manifest.packs.iter().all(|pack| !is_increment(pack.kind)));
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);

    let forgotten = call_as_operator(&daemon, "forget").await;
    assert_eq!(forgotten, (200, json!({"repo": REPO, "store": false})));
    assert!(!mirror(&daemon).exists() && tmp_is_empty(&daemon));
    assert_eq!(daemon.status().await["state"], "empty");
    assert_eq!(daemon.get(SNAPSHOT, &[]).await.status(), 200);
    daemon
        .status_when(|status| status["state"] == "ready")
        .await;

    let forgotten = call_as_operator(&daemon, "forget?store=true").await;
    assert_eq!(forgotten, (200, json!({"repo": REPO, "store": true})));
    assert!(!mirror(&daemon).exists() && daemon.has_forgotten());
    assert_eq!(daemon.status().await["error"]["code"], "unknown_repo");
    let again = call_as_operator(&daemon, "forget").await;
    assert_eq!(
        (again.0, &again.1["error"]["code"]),
        (404, &json!("unknown_repo"))
    );
    let (status, published) = call_as_operator(&daemon, "publish").await;
    assert_eq!(status, 200);
    let id = published["snapshot"].as_str().unwrap();
    assert!(id.starts_with(&format!("{second}-")), "{id}");
    assert_ne!(id, anew["snapshot"]);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_calls_from_web_pages_and_proxies_are_refused() {
    let (daemon, _, head) = published(|_| {}).await;
    let path = format!("/api/v1/repos/{REPO}/forget");

    for header in ["origin", "x-forwarded-for", "forwarded", "via"] {
        let headers = [(header, "http://elsewhere.example.com")];
        let refused = daemon.request(reqwest::Method::POST, &path, &headers).await;
        assert_eq!(refused.status(), 403, "{header}");
    }
    let get = daemon.get(&path, &[]).await;
    assert_eq!(get.status(), 404);
    assert_eq!(call_as_operator(&daemon, "explode").await.0, 404);
    assert_eq!(
        call_as_operator(&daemon, "forget?store=perhaps").await.0,
        404
    );

    assert!(mirror(&daemon).exists());
    assert!(daemon.store().join("snapshots").join(head).exists());
}
