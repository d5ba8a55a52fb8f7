//! Mirrors that are removed because they are unused or because an operator forgets them, and the
//! other calls for operators.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::*;

const SNAPSHOT: &str = "/git/git.example.com/org/repo/snapshot.tar.zst";

fn mirror(world: &World) -> PathBuf {
    world.root.path().join(format!("data/mirrors/{REPO}.git"))
}

fn tmp_is_empty(world: &World) -> bool {
    let tmp = fs::read_dir(world.root.path().join("data/tmp")).unwrap();
    tmp.count() == 0
}

async fn published(change: impl FnOnce(&mut cachewfs_daemon::Config)) -> (World, PathBuf, String) {
    let world = World::start_with(change).await;
    let work = world.create_upstream();
    for number in 0..4 {
        write_file(&work.join("file"), noise(number, 50_000));
        commit_and_push(&work, "more");
    }
    world.refresh().await;
    write_file(&work.join("file"), "one");
    let head = commit_and_push(&work, "one");
    world.refresh().await;
    (world, work, head)
}

/// Sends a call for operators. Returns the status and the response.
async fn act(world: &World, action: &str) -> (u16, Value) {
    let response = world
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
    let (world, _, head) = published(|config| {
        config.mirrors.remove_unused_after = Duration::from_secs(4);
        config.fetch_interval = Duration::from_millis(100);
    })
    .await;
    let mirror = mirror(&world);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let head = world.request(reqwest::Method::HEAD, SNAPSHOT, &[]).await;
        assert_eq!(head.status(), 200);
        assert!(mirror.exists(), "the mirror was removed while it was used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    eventually(|| !mirror.exists() && tmp_is_empty(&world)).await;

    // A request to the API does not count as a use of the mirror.
    let status = world.status().await;
    assert_eq!(status["published"]["snapshot"], head);
    let list = world.get("/api/v1/repos", &[]).await;
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["repos"].as_array().unwrap().len(), 1);
    let listed = list["repos"][0].as_object().unwrap();
    assert!(listed.iter().all(|(key, value)| status[key] == *value));
    assert_eq!(status["state"], "empty");
    assert!(!mirror.exists());
    let served = world.get(SNAPSHOT, &[]).await;
    assert_eq!(served.headers()["x-cachew-snapshot-commit"], head);
    eventually(|| mirror.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_survives_restarts_and_is_not_written_for_each_request() {
    let (world, _, head) = published(|_| {}).await;
    let used = mirror(&world).join("cachewfs-used");
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
        world.get(SNAPSHOT, &[("range", "bytes=0-10")]).await;
    }
    world.refresh().await;
    let when = || used.metadata().unwrap().modified().unwrap();
    assert!(when() < SystemTime::now() - Duration::from_hours(24));
    let root = world.stop().await;
    assert!(
        when() > SystemTime::now() - Duration::from_mins(1),
        "the daemon records the last use when it stops"
    );

    let mut root = root;
    for (days, stays) in [(29, true), (31, false)] {
        let long_ago = SystemTime::now() - Duration::from_hours(24 * days);
        File::create(&used).unwrap().set_modified(long_ago).unwrap();
        let world = World::start_in(root, |config| {
            config.fetch_interval = Duration::from_millis(200);
        })
        .await;
        if stays {
            world
                .status_when(|status| !status["updated_at"].is_null())
                .await;
            assert!(mirror(&world).exists());
        } else {
            eventually(|| !mirror(&world).exists()).await;
        }
        root = world.stop().await;
    }
    let store = root.path().join(format!("data/store/v1/{REPO}.git"));
    assert!(store.join("snapshots").join(head).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_publish_relayout_and_forget() {
    let (world, work, first) = published(|config| config.relayout_share = 1.0).await;
    let is_increment = |kind| kind == cachewfs_format::PackKind::Increment;
    let manifest = world.manifest(&first);
    assert!(manifest.packs.iter().any(|pack| is_increment(pack.kind)));

    let still = act(&world, "publish").await;
    assert_eq!(still, (200, json!({"snapshot": first, "moved": false})));
    write_file(&work.join("file"), "two");
    let second = commit_and_push(&work, "two");
    let moved = act(&world, "publish").await;
    assert_eq!(moved, (200, json!({"snapshot": second, "moved": true})));
    let (status, anew) = act(&world, "relayout").await;
    assert_eq!((status, &anew["moved"]), (200, &json!(true)));
    let manifest = world.manifest(anew["snapshot"].as_str().unwrap());
    assert!(manifest.packs.iter().all(|pack| !is_increment(pack.kind)));
    assert_good_clone(&world.extract("snapshot.tar.zst").await);

    let forgotten = act(&world, "forget").await;
    assert_eq!(forgotten, (200, json!({"repo": REPO, "store": false})));
    assert!(!mirror(&world).exists() && tmp_is_empty(&world));
    assert_eq!(world.status().await["state"], "empty");
    assert_eq!(world.get(SNAPSHOT, &[]).await.status(), 200);
    world.status_when(|status| status["state"] == "ready").await;

    let forgotten = act(&world, "forget?store=true").await;
    assert_eq!(forgotten, (200, json!({"repo": REPO, "store": true})));
    assert!(!mirror(&world).exists() && world.has_forgotten());
    assert_eq!(world.status().await["error"]["code"], "unknown_repo");
    let again = act(&world, "forget").await;
    assert_eq!(
        (again.0, &again.1["error"]["code"]),
        (404, &json!("unknown_repo"))
    );
    let (status, published) = act(&world, "publish").await;
    assert_eq!(status, 200);
    let id = published["snapshot"].as_str().unwrap();
    assert!(id.starts_with(&format!("{second}-")), "{id}");
    assert_ne!(id, anew["snapshot"]);
    assert_good_clone(&world.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_calls_from_web_pages_and_proxies_are_refused() {
    let (world, _, head) = published(|_| {}).await;
    let path = format!("/api/v1/repos/{REPO}/forget");

    for header in ["origin", "x-forwarded-for", "forwarded", "via"] {
        let headers = [(header, "http://elsewhere.example.com")];
        let refused = world.request(reqwest::Method::POST, &path, &headers).await;
        assert_eq!(refused.status(), 403, "{header}");
    }
    let get = world.get(&path, &[]).await;
    assert_eq!(get.status(), 404);
    assert_eq!(act(&world, "explode").await.0, 404);
    assert_eq!(act(&world, "forget?store=perhaps").await.0, 404);

    assert!(mirror(&world).exists());
    assert!(world.store().join("snapshots").join(head).exists());
}
