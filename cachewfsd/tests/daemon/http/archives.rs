//! Requests for archives: headers, ranges, preconditions and errors.

use cachewfs_format::ArchiveKind;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

async fn published() -> (TestDaemon, String) {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 3_000_000));
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, head)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stable_url_names_the_immutable_one() {
    let (daemon, head) = published().await;

    for kind in ["snapshot", "mirror"] {
        let stable = daemon
            .get(&format!("/git/{REPO}.git/{kind}.tar.zst"), &[])
            .await;
        let location = header(&stable, "content-location");
        let immutable = daemon.get(&location, &[]).await;
        let head_only = daemon.request(Method::HEAD, &location, &[]).await;

        assert_eq!(location, format!("/git/{REPO}/{kind}/{head}.tar.zst"));
        assert_eq!(header(&stable, "x-cachew-snapshot-commit"), head);
        assert_eq!(header(&stable, "cache-control"), "no-cache");
        assert_eq!(header(&stable, "accept-ranges"), "bytes");
        assert!(header(&stable, "last-modified").ends_with("GMT"));
        assert_eq!(
            header(&immutable, "cache-control"),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(
            header(&head_only, "content-length"),
            header(&immutable, "content-length")
        );
        assert_eq!(header(&stable, "etag"), header(&immutable, "etag"));
        let bytes = stable.bytes().await.unwrap();
        assert_eq!(bytes, immutable.bytes().await.unwrap());
        assert_eq!(head_only.bytes().await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_slices_of_the_whole() {
    let (daemon, _) = published().await;
    let whole = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    let len = whole.len();
    let ranges = [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=1000-2500000".to_owned(), 1000..2_500_001),
        ("bytes=-65536".to_owned(), len - 65_536..len),
        (format!("bytes={}-", len - 3), len - 3..len),
        (format!("bytes=5-{}", len * 2), 5..len),
    ];

    for (value, expected) in ranges {
        let part = daemon.get(&stable(), &[("range", &value)]).await;

        assert_eq!(part.status(), 206, "{value}");
        let content_range = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
        assert_eq!(header(&part, "content-range"), content_range);
        assert_eq!(part.bytes().await.unwrap(), whole[expected], "{value}");
    }
    let beyond = daemon
        .get(&stable(), &[("range", &format!("bytes={len}-"))])
        .await;
    assert_eq!(beyond.status(), 416);
    assert_eq!(header(&beyond, "content-range"), format!("bytes */{len}"));
    for value in ["bytes=0-1,5-6", "bytes=x", "lines=1-2"] {
        let all = daemon.get(&stable(), &[("range", value)]).await;
        assert_eq!(all.status(), 200, "{value}");
        assert_eq!(all.bytes().await.unwrap().len(), len);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_breaks_the_connection() {
    let (daemon, head) = published().await;
    let layout = &daemon.manifest(&head).archives[&ArchiveKind::Checkout];
    let last = layout.segments.last().unwrap();
    std::fs::remove_file(daemon.store().join("segments").join(last.id.to_string())).unwrap();

    let response = daemon.get(&stable(), &[]).await;

    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_come_before_ranges() {
    let (daemon, _) = published().await;
    let etag = header(&daemon.request(Method::HEAD, &stable(), &[]).await, "etag");
    let status =
        async |headers: &[(&str, &str)]| daemon.get(&stable(), headers).await.status().as_u16();

    assert_eq!(
        status(&[("if-match", &etag), ("range", "bytes=0-1")]).await,
        206
    );
    assert_eq!(
        status(&[("if-match", "\"x\""), ("range", "bytes=0-1")]).await,
        412
    );
    assert_eq!(status(&[("if-none-match", &etag)]).await, 304);
    assert_eq!(
        status(&[("if-none-match", &etag), ("range", "bytes=999999999-")]).await,
        304
    );
    assert_eq!(
        status(&[("if-none-match", "\"x\""), ("range", "bytes=-5")]).await,
        206
    );
    assert_eq!(
        status(&[("if-range", &etag), ("range", "bytes=0-1")]).await,
        206
    );
    assert_eq!(
        status(&[("if-range", "\"x\""), ("range", "bytes=0-1")]).await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_starts_a_build_and_a_head_does_not() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    let tail = [("range", "bytes=-65536")];

    let head = daemon.request(Method::HEAD, &stable(), &[]).await;
    let unknown = daemon.get(&format!("/api/v1/repos/{REPO}"), &[]).await;
    let first = daemon.get(&stable(), &tail).await;

    assert_eq!(head.status(), 404);
    assert_eq!(unknown.status(), 404);
    assert_eq!(header(&first, "retry-after"), "1");
    assert_eq!(code(first).await, (503, "snapshot_not_ready".to_owned()));
    answer_with(206, async || daemon.get(&stable(), &tail).await).await;
    let described = daemon.get(&format!("/api/v1/repos/{REPO}"), &[]).await;
    let described: Value = described.json().await.unwrap();
    assert_eq!(described["state"], "ready");
    assert!(described["published"]["checkout_bytes"].as_u64().unwrap() > 0);
    let list: Value = daemon.get("/api/v1/repos", &[]).await.json().await.unwrap();
    assert_eq!(list["repos"][0]["repo"], REPO);
    assert_eq!(list["hosts"][0], "git.example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_have_distinct_codes() {
    let (daemon, head) = published().await;
    let get = async |path: &str| code(daemon.get(path, &[]).await).await;
    let answer = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(
        get("/git/other.org/a/snapshot.tar.zst").await,
        answer(404, "unknown_host")
    );
    for bad in [
        "git.example.com/a%2Fb",
        "git.example.com/%2e%2e/x",
        "git.example.com/-x",
        "git.example.com",
    ] {
        assert_eq!(
            get(&format!("/git/{bad}/snapshot.tar.zst")).await,
            answer(400, "bad_repo_name"),
            "{bad}"
        );
    }
    assert_eq!(
        get("/git/git.example.com/a.git/b/snapshot.tar.zst").await,
        answer(400, "bad_repo_name")
    );
    assert_eq!(
        get(&format!("/git/{REPO}/snapshot/HEAD.tar.zst")).await,
        answer(400, "bad_snapshot_id")
    );
    let unknown = format!("/git/{REPO}/snapshot/{}.tar.zst", "0".repeat(40));
    assert_eq!(get(&unknown).await, answer(404, "no_snapshot"));
    let later = format!("/git/{REPO}/snapshot/{head}-{}.tar.zst", "0".repeat(16));
    assert_eq!(get(&later).await, answer(404, "no_snapshot"));
    assert_eq!(get("/nothing").await, answer(404, "no_such_path"));
    for path in [&stable(), "/healthz", "/metrics", "/api/v1/repos", "/"] {
        let post = daemon.request(Method::POST, path, &[]).await;
        assert_eq!(
            header(&post, "allow").replace(' ', ""),
            "GET,HEAD",
            "{path}"
        );
        assert_eq!(code(post).await, answer(405, "method_not_allowed"));
    }
    assert_eq!(daemon.get("/healthz", &[]).await.status(), 200);
    assert_eq!(daemon.get("/readyz", &[]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_is_not_a_repository() {
    let (daemon, _) = published().await;

    for name in ["git.example.com/org", "git.example.com/org/missing"] {
        let path = format!("/git/{name}/refresh");
        let refused = daemon.request(Method::POST, &path, &[]).await;
        assert_eq!(code(refused).await, (404, "upstream_not_found".to_owned()));
        let again = daemon
            .get(&format!("/git/{name}/snapshot.tar.zst"), &[])
            .await;
        assert_eq!(code(again).await, (404, "upstream_not_found".to_owned()));
    }
    assert_eq!(daemon.get(&stable(), &[]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn published_snapshots_survive_a_restart_and_the_loss_of_upstream() {
    let (daemon, head) = published().await;
    let config = cachewfs_daemon::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: daemon.root.path().join("data").into(),
        upstreams: [(
            "git.example.com".to_owned(),
            "file:///nonexistent".to_owned().into(),
        )]
        .into(),
        ..cachewfs_daemon::Config::default()
    };
    let in_use = cachewfsd::daemon().start(config.clone()).await;
    assert!(matches!(
        in_use,
        Err(cachewfs_daemon::StartError::InUse { .. })
    ));
    daemon.running.shutdown.cancel();
    daemon.running.stopped().await;

    let running = cachewfsd::daemon().start(config).await.unwrap();
    let url = format!("http://{}{}", running.address, stable());
    let response = reqwest::get(url).await.unwrap();

    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "x-cachew-snapshot-commit"), head);
    drop(response);
    running.shutdown.cancel();
    running.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_described_with_refs_and_snapshots() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 100_000));
    let first = commit_and_push(&work, "one");
    gate.close();

    let path = stable();
    let (snapshot, cloning) = tokio::join!(daemon.get(&path, &[]), async {
        gate.wait_for_packs(1).await;
        let cloning = daemon.status().await;
        gate.open();
        cloning
    });
    assert!(!snapshot.bytes().await.unwrap().is_empty());
    git(&work, ["tag", "v1"]);
    let second = commit_and_push(&work, "two");
    daemon.refresh().await;
    let described = daemon.status_when(|status| status["job"].is_null()).await;

    let job = &cloning["job"];
    assert_eq!(
        (&job["class"], &job["is_running"]),
        (&json!("clone"), &json!(true))
    );
    assert!(cloning["refs"].is_null() && cloning["snapshots"] == json!([]));
    let refs = json!({"refs/heads/main": second, "refs/tags/v1": first});
    assert_eq!(
        described["refs"],
        json!({"head": second, "named": refs, "is_cut": false})
    );
    let [newer, older] = &described["snapshots"].as_array().unwrap()[..] else {
        panic!("not two snapshots in {described}");
    };
    assert_eq!(
        (&newer["snapshot"], &older["snapshot"]),
        (&json!(second), &json!(first))
    );
    assert!(older["shared_bytes"].is_null());
    let shared = newer["shared_bytes"].as_u64().unwrap();
    assert!(shared > 100_000 && shared < newer["bytes"].as_u64().unwrap());
    assert_eq!(described["snapshots_total"], 2);
    let (last, next) = (&described["updated_at"], &described["next_update_at"]);
    assert!(next.as_u64() > last.as_u64());
}
