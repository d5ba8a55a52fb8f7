//! A bucket that no longer accepts the daemon's credentials, or that was unreachable at the start.

use std::time::Duration;

use cachewfs_daemon::S3Config;
use cachewfs_tests::{Fault, Proxy, TestBucket, s3_bucket};

use crate::support::bucket::config;
use crate::support::process::{refresh, start_process};
use crate::support::test_daemon::*;

fn through(proxy: &Proxy, bucket: &TestBucket) -> S3Config {
    S3Config {
        endpoint: Some(proxy.url()),
        ..config(bucket)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_copies_are_served_when_credentials_stop_working() {
    let Some(bucket) = s3_bucket() else { return };
    let proxy = Proxy::start(bucket.address);
    let s3 = through(&proxy, &bucket);
    let daemon = TestDaemon::start_with(|all| all.store.s3 = Some(s3)).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 3_000_000));
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let published = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    let immutable = format!("/git/{REPO}/snapshot/{first}.tar.zst");

    for (status, code) in [
        (403, "InvalidAccessKeyId"),
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
    ] {
        let refused = async || {
            let page = daemon.get("/metrics", &[]).await.text().await.unwrap();
            let sample = "cachewfsd_s3_requests_total{operation=\"get\",outcome=\"refused\"} ";
            let line = page.lines().find_map(|line| line.strip_prefix(sample));
            line.map_or(0, |count| count.parse::<u64>().unwrap())
        };
        let before = refused().await;
        proxy.set(Fault::Refused(status, code));
        until(async || {
            for path in [&stable(), &immutable] {
                let served = daemon.get(path, &[]).await;
                assert_eq!(served.status(), 200, "{code}");
                assert!(served.bytes().await.unwrap() == published);
            }
            let is_refused = refused().await > before;
            is_refused
                .then_some(())
                .ok_or("the bucket refused no request")
        })
        .await;
        let listed = daemon.get("/api/v1/repos", &[]).await;
        assert_eq!(listed.status(), 200, "{code}");
        assert!(listed.text().await.unwrap().contains(&first));
        // A publish fails with the reason.
        write_file(&work.join("small"), code);
        commit_and_push(&work, "more");
        let failed = daemon.post(&format!("/git/{REPO}/refresh"), "").await;
        assert_eq!(failed.status(), 500);
        let said = failed.text().await.unwrap();
        let expected = "the bucket refuses the daemon's credentials or permissions";
        assert!(said.contains(expected) && said.contains(code), "{said}");
        let served = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
        assert!(served == published, "{code}");
        proxy.set(Fault::None);
    }

    daemon.refresh().await;
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_to_a_bucket_are_logged_once_and_so_is_their_end() {
    let Some(bucket) = s3_bucket() else { return };
    let proxy = Proxy::start(bucket.address);
    // Only the upstream of this daemon is used. The tested daemon is a process with a log of its
    // own.
    let daemon = TestDaemon::start().await;
    commit_and_push(&daemon.create_upstream(), "one");
    let root = tempfile::tempdir().unwrap();
    let text = format!(
        "[upstreams]\n'git.example.com' = 'file://{}'\n\
         [store.s3]\nbucket = '{}'\nendpoint = '{}'\ncredentials_file = '{}'\n",
        daemon.root.path().join("upstream").display(),
        bucket.name,
        proxy.url(),
        bucket.credentials.display(),
    );
    let process = start_process(root.path(), &text, &[]);
    refresh(&process).await;
    let ask = async |path: &str| {
        let answer = reqwest::get(process.url() + path).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };

    proxy.set(Fault::Refused(403, "InvalidAccessKeyId"));
    let many = "cachewfsd_s3_requests_total{operation=\"get\",outcome=\"refused\"} 3";
    until(async || {
        ask(&format!("/api/v1/repos/{REPO}")).await;
        let metrics = ask("/metrics").await;
        if metrics.contains(many) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    let log = process.log();
    let said = |line: &&str| line.contains("can't be used") && line.contains("operation=\"get\"");
    let said: Vec<&str> = log.lines().filter(said).collect();
    assert!(said.len() == 1 && said[0].contains("ERROR"), "{log}");
    assert!(said[0].contains("InvalidAccessKeyId"), "{log}");

    proxy.set(Fault::None);
    until(async || {
        ask(&format!("/api/v1/repos/{REPO}")).await;
        let log = process.log();
        let is_back = log.contains("The bucket accepts requests again");
        if is_back { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_bucket_recovers_within_a_minute() {
    let Some(bucket) = s3_bucket() else { return };
    let proxy = Proxy::start(bucket.address);
    proxy.set(Fault::Unavailable);
    let s3 = through(&proxy, &bucket);
    let daemon = TestDaemon::start_with(|all| {
        all.store.s3 = Some(s3);
        // Longer than the longest backoff after a failure of the bucket, which is one minute.
        all.mirrors.retry_first = Duration::from_mins(30);
    })
    .await;
    let pushed = commit_and_push(&daemon.create_upstream(), "one");

    // Without the bucket, the daemon cannot know the published snapshot, so the refresh fails.
    let failed = daemon.post(&format!("/git/{REPO}/refresh"), "").await;
    assert_eq!(failed.status(), 500, "{}", failed.text().await.unwrap());
    let listed = daemon.get("/api/v1/repos", &[]).await.text().await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let failure = &listed["repos"][0]["failure"];
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let pause = failure["next_try_at"].as_u64().unwrap() - now.as_secs();
    assert!(pause <= 61, "{failure}");

    proxy.set(Fault::None);
    let path = format!("/git/{REPO}/refresh");
    answer_with(200, async || daemon.post(&path, "").await).await;
    assert_eq!(daemon.status().await["published"]["snapshot"], pushed);
}
