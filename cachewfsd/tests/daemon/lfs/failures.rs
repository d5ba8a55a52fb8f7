//! LFS archives if the fetch of LFS objects fails, is slow, needs credentials, is cancelled or is
//! switched off.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cachewfs_daemon::{Config, LfsMode, UpstreamAuthConfig};
use reqwest::Method;
use serde_json::Value;

use crate::support::http_upstream::{HttpUpstream, UpstreamMode, start_behind_http};
use crate::support::lfs::{create_lfs_upstream, get_lfs_of, lfs, object_below, oid_of, toc_of};
use crate::support::test_daemon::*;

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_corrupt_lfs_objects_are_not_published() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    let object = object_below(&daemon.upstream(), &oid_of(&work, "dir/large.bin"));
    let good = fs::read(&object).unwrap();

    for bad in [Some(noise(3, good.len())), None] {
        fs::remove_file(&object).unwrap();
        if let Some(bad) = &bad {
            write_file(&object, bad);
        }
        daemon.refresh().await;
        assert_eq!(
            code(daemon.get(&lfs(), &[]).await).await,
            (502, "lfs_failed".to_owned())
        );
        let failure = daemon
            .status_when(|status| !status["lfs"]["failure"].is_null())
            .await;
        let message = failure["lfs"]["failure"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains("the LFS object"), "{message}");
        let failed = "cachewfsd_job_failures_total{class=\"lfs\",kind=\"upstream\"}";
        let metrics = daemon.get("/metrics", &[]).await.text().await.unwrap();
        assert!(metrics.contains(failed), "{metrics}");
        let page = daemon.get("/", &[]).await.text().await.unwrap();
        assert!(page.contains("1 of 1 repository needs attention"), "{page}");
        assert!(!daemon.store().join("lfs/current").exists());
        assert_eq!(
            header(
                &daemon.get(&stable(), &[]).await,
                "x-cachew-snapshot-commit"
            ),
            commit
        );
        if bad.is_none() {
            write_file(&object, &good);
        }
    }

    // A refresh retries at once, without backoff.
    daemon.refresh().await;
    get_lfs_of(&daemon, &commit).await;
    assert!(daemon.status().await["lfs"]["failure"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn lfs_objects_are_fetched_with_the_credentials_of_the_daemon() {
    for in_url in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        write_file(&file, "s3cret");
        let (daemon, upstream) = start_behind_http(|config: &mut Config| {
            if in_url {
                let base = config.upstreams.get_mut("git.example.com").unwrap();
                *base = base.url().replace("http://", "http://me:s3cret@").into();
            } else {
                let auth = UpstreamAuthConfig {
                    token_file: Some(file.clone()),
                    username: "me".to_owned(),
                    ..UpstreamAuthConfig::default()
                };
                config.upstream_auth = [("git.example.com".to_owned(), auth)].into();
            }
        })
        .await;
        upstream.require("me:s3cret");
        let work = create_lfs_upstream(&daemon);
        let commit = commit_and_push(&work, "one");
        daemon.refresh().await;

        let archive = get_lfs_of(&daemon, &commit).await.bytes().await.unwrap();

        assert_eq!(toc_of(&archive).1.segments.len(), 2 * 2 + 1);
        let asked = upstream.seen(&["POST", "/info/lfs/objects/batch"]);
        assert!(
            asked
                .iter()
                .any(|seen| seen.headers.contains_key("authorization")),
            "{in_url}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lfs_server_cannot_send_the_daemon_to_private_addresses() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let work = create_lfs_upstream(&daemon);
    commit_and_push(&work, "one");
    daemon.refresh().await;

    for elsewhere in ["http://169.254.169.254/latest", "http://10.0.0.1:1/x"] {
        let began = Instant::now();
        write_file(&daemon.upstream().join("lfs/elsewhere"), elsewhere);
        daemon.refresh().await;
        let failed = daemon.get(&lfs(), &[]).await.text().await.unwrap();

        assert!(failed.contains("\"lfs_failed\""), "{failed}");
        let status = daemon.status().await["lfs"]["failure"].to_string();
        assert!(status.contains("can't fetch the LFS objects"), "{status}");
        for text in [failed, status] {
            assert!(
                !text.contains("169.254") && !text.contains("10.0.0"),
                "{text}"
            );
        }
        // Too fast for a connection attempt, which would time out.
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert!(!upstream.seen(&["/info/lfs/objects/batch"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lfs_url_in_a_repository_is_ignored() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    write_file(
        &work.join(".lfsconfig"),
        "[lfs]\n\turl = http://127.0.0.1:1/\n",
    );
    let url = format!("file://{}", daemon.upstream().display());
    git(&work, ["config", "lfs.url", &url]);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;

    get_lfs_of(&daemon, &commit).await;
}

async fn behind_a_slow_upstream() -> (TestDaemon, HttpUpstream, PathBuf, String) {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    upstream.set(UpstreamMode::HangsForLfs);
    (daemon, upstream, work, commit)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_lfs_objects_block_nothing_else() {
    let (daemon, upstream, work, _) = behind_a_slow_upstream().await;

    let early = daemon.get(&lfs(), &[]).await;

    assert_eq!(header(&early, "retry-after"), "1");
    assert_eq!(code(early).await, (503, "snapshot_not_ready".to_owned()));
    assert!(!upstream.seen(&["/info/lfs/objects/batch"]).is_empty());
    write_file(&work.join("b"), "b\n");
    let commit = commit_and_push(&work, "two");
    assert_eq!(daemon.refresh().await["snapshot"], commit);
    assert_eq!(
        header(
            &daemon.get(&stable(), &[]).await,
            "x-cachew-snapshot-commit"
        ),
        commit
    );
    assert_eq!(daemon.status().await["lfs"]["is_running"], true);
    for (path, part) in [
        ("/metrics", "cachewfsd_jobs_running{class=\"lfs\"} 1\n"),
        ("/", "getting LFS objects"),
    ] {
        let page = daemon.get(path, &[]).await.text().await.unwrap();
        assert!(page.contains(part), "no {part} in {page}");
    }
    for headers in [
        [("range", "bytes=-65536")],
        [("x-cachew-snapshot-pin", "probe")],
    ] {
        assert_eq!(daemon.get(&lfs(), &headers).await.status(), 503);
    }

    // The run that hung was for the first commit. The run for the second one follows without a
    // request.
    upstream.set(UpstreamMode::Good);
    get_lfs_of(&daemon, &commit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lfs_fetch_ends_with_the_daemon_and_with_the_repository() {
    let (daemon, _upstream, _, _) = behind_a_slow_upstream().await;
    daemon.get(&lfs(), &[]).await;
    let path = format!("/api/v1/repos/{REPO}/forget?store=true");
    let began = Instant::now();
    assert_eq!(daemon.post(&path, "").await.status(), 200);
    assert!(daemon.has_forgotten());
    daemon.get(&lfs(), &[]).await;
    assert_eq!(daemon.status().await["lfs"]["is_running"], true);

    daemon.stop().await;

    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_a_repository_forgets_its_lfs_archive() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;
    get_lfs_of(&daemon, &commit).await;

    let path = format!("/api/v1/repos/{REPO}/forget?store=true");
    assert_eq!(daemon.post(&path, "").await.status(), 200);

    assert!(daemon.has_forgotten());
    assert_eq!(
        daemon.request(Method::HEAD, &lfs(), &[]).await.status(),
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lfs_archives_can_be_set_to_always_or_off() {
    let daemon = TestDaemon::start_with(|config| config.lfs = LfsMode::Always).await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;
    let is_there = |status: &Value| status["lfs"]["published"]["snapshot"] == commit;
    daemon.status_when(is_there).await;

    let root = daemon.stop().await;
    let never = TestDaemon::start_in(root, |config| config.lfs = LfsMode::Off).await;
    write_file(&work.join("new.bin"), "new\n");
    commit_and_push(&work, "two");
    never.refresh().await;
    // The published LFS archive is still served, but no new one is made.
    assert_eq!(
        header(&never.get(&lfs(), &[]).await, "x-cachew-snapshot-commit"),
        commit
    );
    fs::remove_dir_all(never.store().join("lfs")).unwrap();
    let root = never.stop().await;
    let never = TestDaemon::start_in(root, |config| config.lfs = LfsMode::Off).await;
    assert_eq!(
        code(never.get(&lfs(), &[]).await).await,
        (501, "lfs_unavailable".to_owned())
    );
}
