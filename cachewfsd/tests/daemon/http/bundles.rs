//! `GET P/snapshot.bundle`: the content of a bundle, and the errors.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::{Method, Response};

use crate::support::test_daemon::*;

fn url(base: &str) -> String {
    format!("/git/{REPO}/snapshot.bundle?base={base}")
}

/// Starts a daemon with a published repository of two branches. Returns the work tree and the head,
/// too.
async fn published() -> (TestDaemon, PathBuf, String) {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "zero");
    git(&work, ["checkout", "-q", "-b", "side"]);
    commit_and_push(&work, "unmerged");
    git(&work, ["checkout", "-q", "main"]);
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, work, head)
}

async fn save(daemon: &TestDaemon, bundle: Response) -> PathBuf {
    assert_eq!(bundle.status(), 200);
    assert_eq!(header(&bundle, "content-type"), "application/x-git-bundle");
    let len: usize = header(&bundle, "content-length").parse().unwrap();
    let bytes = bundle.bytes().await.unwrap();
    assert_eq!(bytes.len(), len);
    let file = daemon.root.path().join("x.bundle");
    write_file(&file, bytes);
    file
}

fn pull(clone: &Path, bundle: &Path) -> String {
    git(
        clone,
        ["pull", "-q", "--ff-only", bundle.to_str().unwrap(), "main"],
    );
    git(clone, ["rev-parse", "HEAD"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_behind_the_mirror_names_a_bundle() {
    let (daemon, work, head) = published().await;
    let clone = daemon.extract("snapshot.tar.zst").await;
    let even = daemon.request(Method::HEAD, &stable(), &[]).await;
    write_file(&work.join("new"), "new\n");
    git(&work, ["tag", "-a", "v2", "-m", "two"]);
    let new = commit_and_push(&work, "two");

    let blocked_publish = BlockedPublish::after_update(&daemon).await;
    let ahead = daemon.request(Method::HEAD, &stable(), &[]).await;
    drop(blocked_publish);

    assert!(even.headers().get("x-cachew-bundle-url").is_none());
    assert_eq!(header(&ahead, "x-cachew-snapshot-commit"), head);
    let bundle_url = header(&ahead, "x-cachew-bundle-url");
    assert_eq!(bundle_url, url(&head));
    let bundle = save(&daemon, daemon.get(&bundle_url, &[]).await).await;
    assert_eq!(pull(&clone, &bundle), new);
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_the_heads_and_tags_that_moved() {
    let (daemon, work, head) = published().await;
    let clone = daemon.extract("snapshot.tar.zst").await;
    git(&work, ["checkout", "-q", "-b", "other"]);
    let other = commit_and_push(&work, "other");
    git(&work, ["tag", "v2"]);
    git(&work, ["checkout", "-q", "main"]);
    let new = commit_and_push(&work, "two");
    daemon.refresh().await;

    let bundle = save(&daemon, daemon.get(&url(&head), &[]).await).await;

    let path = bundle.to_str().unwrap();
    let heads = git(&clone, ["bundle", "list-heads", path]);
    let mut heads: Vec<_> = heads.lines().collect();
    heads.sort_unstable();
    let mut expected = [
        format!("{new} HEAD"),
        format!("{new} refs/heads/main"),
        format!("{other} refs/heads/other"),
        format!("{other} refs/tags/v2"),
    ];
    expected.sort_unstable();
    assert_eq!(heads, expected);
    git(&clone, ["bundle", "verify", "-q", path]);
    assert_eq!(pull(&clone, &bundle), new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_moved_to_a_known_commit_is_in_the_bundle() {
    let (daemon, work, head) = published().await;
    let clone = daemon.extract("snapshot.tar.zst").await;
    git(&work, ["merge", "-q", "--no-edit", "side"]);
    git(&work, ["branch", "-f", "side"]);
    let merged = git(&work, ["rev-parse", "HEAD"]);
    git(&work, ["push", "-q", "origin", "side"]);
    // Publishes a snapshot of the old commit of HEAD that already has the new tip of `side`.
    daemon.refresh().await;
    git(&work, ["push", "-q", "origin", "main"]);
    daemon.refresh().await;

    let bundle = save(&daemon, daemon.get(&url(&head), &[]).await).await;

    assert_eq!(pull(&clone, &bundle), merged);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_date_is_answered_only_after_asking_upstream() {
    let (daemon, work, head) = published().await;

    let even = daemon.get(&url(&head), &[]).await;
    let new = commit_and_push(&work, "two");
    let moved = daemon.get(&url(&head), &[]).await;
    daemon.refresh().await;
    let even_again = daemon.get(&url(&new), &[]).await;
    fs::rename(daemon.upstream(), daemon.root.path().join("away")).unwrap();
    let failed = daemon.get(&url(&new), &[]).await;

    assert_eq!(even.status(), 204);
    assert_eq!(moved.status(), 200);
    assert_eq!(even_again.status(), 204);
    assert_eq!(code(failed).await, (502, "upstream_failed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_base_and_an_unknown_base_get_different_errors() {
    let (daemon, _, head) = published().await;
    let tree = git(&daemon.upstream(), ["rev-parse", "HEAD^{tree}"]);

    let long = format!("{head}0");
    for bad in ["", "HEAD", "--all", &long, &head.to_uppercase()] {
        let refused = daemon.get(&url(bad), &[]).await;
        assert_eq!(
            code(refused).await,
            (400, "bad_request".to_owned()),
            "{bad}"
        );
    }
    for unknown in ["1".repeat(40), "1".repeat(64), tree] {
        let refused = daemon.get(&url(&unknown), &[]).await;
        let expected = (404, "unknown_base".to_owned());
        assert_eq!(code(refused).await, expected, "{unknown}");
    }
    let other = format!("/git/git.example.com/org/other/snapshot.bundle?base={head}");
    let head_only = daemon.request(Method::HEAD, &other, &[]).await;
    assert_eq!(head_only.status(), 404);
    let unknown = daemon.get("/api/v1/repos/git.example.com/org/other", &[]);
    assert_eq!(unknown.await.status(), 404);
    let post = daemon.request(Method::POST, &url(&head), &[]).await;
    assert_eq!(header(&post, "allow"), "GET, HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_can_be_made_if_head_names_no_branch() {
    let (daemon, work, head) = published().await;
    let new = commit_and_push(&work, "two");
    let upstream = daemon.upstream();

    for state in ["detached", "unborn"] {
        if state == "detached" {
            git(&upstream, ["update-ref", "--no-deref", "HEAD", &new]);
        } else {
            git(&upstream, ["symbolic-ref", "HEAD", "refs/heads/none"]);
        }
        let refresh = format!("/git/{REPO}/refresh");
        daemon.post(&refresh, "").await;

        let bundle = save(&daemon, daemon.get(&url(&head), &[]).await).await;

        let heads = git(&work, ["bundle", "list-heads", bundle.to_str().unwrap()]);
        assert!(
            heads.contains(&format!("{new} refs/heads/main")),
            "{state}: {heads}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_gets_the_status_and_length_of_a_get() {
    let (daemon, work, head) = published().await;

    let even = daemon.request(Method::HEAD, &url(&head), &[]).await;
    commit_and_push(&work, "two");
    let moved = daemon.request(Method::HEAD, &url(&head), &[]).await;
    let body = daemon.get(&url(&head), &[]).await.bytes().await.unwrap();

    assert_eq!(even.status(), 204);
    assert_eq!(moved.status(), 200);
    assert_eq!(header(&moved, "content-length"), body.len().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_one_bundle() {
    let (daemon, work, head) = published().await;
    write_file(&work.join("noise"), noise(7, 2_000_000));
    commit_and_push(&work, "two");
    daemon.refresh().await;

    let path = url(&head);
    let asked = (0..20).map(|_| async {
        let response = daemon.get(&path, &[]).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap()
    });
    let bundles = futures_util::future::join_all(asked).await;

    assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
    let kept = fs::read_dir(daemon.root.path().join("data/tmp/bundles")).unwrap();
    assert_eq!(kept.count(), 1);
}
