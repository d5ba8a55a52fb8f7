//! `POST P/ensure-refs`: its responses, and when it asks upstream.

use std::fs;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

fn path() -> String {
    format!("/git/{REPO}/ensure-refs")
}

async fn ensure(daemon: &TestDaemon, request: Value) -> Value {
    let response = daemon.post(&path(), request.to_string()).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_if_the_mirror_has_everything() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    // Upstream is unreachable from now on.
    fs::rename(daemon.upstream(), daemon.root.path().join("away")).unwrap();

    let request = json!({"refs": {"refs/heads/main": head}, "commits": [head]});
    let pinned = ensure(&daemon, request).await;
    let any = ensure(&daemon, json!({"refs": {"refs/heads/main": ""}})).await;

    let expected = json!({
        "refs": {"refs/heads/main": head}, "missing_commits": [], "fetched": false
    });
    assert_eq!(pinned, expected);
    assert_eq!(any, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_refs_are_fetched_and_unknown_refs_are_empty() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let old = commit_and_push(&work, "one");
    daemon.refresh().await;
    git(&work, ["tag", "v1"]);
    let new = commit_and_push(&work, "two");

    let nowhere = "1".repeat(40);
    let answer = ensure(
        &daemon,
        json!({
            "refs": {
                "refs/heads/main": new, "refs/tags/v1": "", "refs/heads/none": "",
                "refs/heads/bad..name": "", "--all": "", "main": "",
            },
            "commits": [nowhere, old, new, "HEAD"],
        }),
    )
    .await;

    let expected = json!({
        "refs": {
            "refs/heads/main": new, "refs/tags/v1": old, "refs/heads/none": "",
            "refs/heads/bad..name": "", "--all": "", "main": "",
        },
        "missing_commits": [nowhere, "HEAD"],
        "fetched": true,
    });
    assert_eq!(answer, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_is_fetched_only_if_the_client_expects_another_commit() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let old = commit_and_push(&work, "one");
    daemon.refresh().await;
    let new = commit_and_push(&work, "two");

    let any = ensure(&daemon, json!({"refs": {"refs/heads/main": ""}})).await;
    let moved = ensure(&daemon, json!({"refs": {"refs/heads/main": new}})).await;

    assert_eq!(any["refs"]["refs/heads/main"], old);
    assert_eq!(any["fetched"], false);
    assert_eq!(moved["refs"]["refs/heads/main"], new);
    assert_eq!(moved["fetched"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_repository_is_cloned_first() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");

    let answer = ensure(&daemon, json!({"commits": [head]})).await;

    let expected = json!({"refs": {}, "missing_commits": [], "fetched": true});
    assert_eq!(answer, expected);
    let path = "/git/git.example.com/org/typo/ensure-refs";
    let request = json!({"commits": [head]}).to_string();
    let typo = daemon.post(path, request).await;
    assert_eq!(code(typo).await, (404, "upstream_not_found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_first_clone_is_retried() {
    let (daemon, gate) = Gate::start(|config| {
        config.ref_check_interval = Duration::ZERO;
        config.mirrors.retry_first = Duration::from_millis(1);
        config.mirrors.retry_max = Duration::from_millis(1);
    })
    .await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");
    gate.close();
    gate.fail();
    let request = json!({"commits": [head]});

    let failed = daemon.post(&path(), request.to_string()).await;
    assert_eq!(code(failed).await, (502, "upstream_failed".to_owned()));
    gate.repair();

    // The daemon may answer with the last failure until the backoff is over.
    answer_with(200, async || {
        daemon.post(&path(), request.to_string()).await
    })
    .await;
    assert_eq!(ensure(&daemon, request).await["missing_commits"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_upstream_is_answered_with_502() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    fs::rename(daemon.upstream(), daemon.root.path().join("away")).unwrap();

    let request = json!({"commits": ["1".repeat(40)]}).to_string();
    let failed = daemon.post(&path(), request).await;

    assert_eq!(code(failed).await, (502, "upstream_failed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let many: Vec<String> = (0..1001).map(|number| format!("{number:040}")).collect();
    let bad = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        json!({"refs": {}, "commits": []}).to_string(),
        json!({"refs": ["refs/heads/main"]}).to_string(),
        json!({"commits": many}).to_string(),
    ];

    for body in bad {
        let refused = daemon.post(&path(), body.clone()).await;
        let answer = code(refused).await;
        assert_eq!(answer, (400, "bad_request".to_owned()), "{body:.80}");
    }
    let long = daemon.post(&path(), vec![b' '; (1 << 20) + 1]).await;
    assert_eq!(code(long).await, (413, "body_too_large".to_owned()));
    for method in [Method::GET, Method::PUT, Method::HEAD] {
        let refused = daemon.request(method, &path(), &[]).await;
        assert_eq!(refused.status(), 405);
        assert_eq!(header(&refused, "allow"), "POST");
    }
}
