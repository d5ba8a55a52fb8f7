//! Backups of a bucket, and buckets that lost objects, as `docs/operations/store.md` describes
//! them.

use std::fs;

use cachewfs_daemon::{Config, S3Config};
use cachewfs_format::Manifest;
use cachewfs_tests::{TestBucket, s3_bucket};

use crate::support::bucket;
use crate::support::test_daemon::*;

async fn start(s3: S3Config) -> TestDaemon {
    TestDaemon::start_with(|config| config.store.s3 = Some(s3)).await
}

/// Starts the daemon again without its data directory.
async fn replace(daemon: TestDaemon, s3: S3Config) -> TestDaemon {
    let root = daemon.stop().await;
    fs::remove_dir_all(root.path().join("data")).unwrap();
    TestDaemon::start_in(root, |config| config.store.s3 = Some(s3)).await
}

fn url(bucket: &TestBucket, object: &str) -> String {
    format!("{}/{}/{object}", bucket.endpoint, bucket.name)
}

async fn read(bucket: &TestBucket, object: &str) -> Vec<u8> {
    let answer = reqwest::get(url(bucket, object)).await.unwrap();
    assert_eq!(answer.status(), 200, "{object}");
    answer.bytes().await.unwrap().to_vec()
}

/// Copies the objects whose names have `part` in them.
async fn copy(from: &TestBucket, to: &TestBucket, part: &str) -> usize {
    let listed = from.ask("GET", "?list-type=2&prefix=v1/");
    let keys = listed.split("<Key>").skip(1);
    let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
    let mut count = 0;
    for (key, _) in keys.filter(|(key, _)| key.contains(part)) {
        to.put(key, read(from, key).await);
        count += 1;
    }
    count
}

/// Runs a garbage collection. Returns the segments that it reports as missing.
async fn missing(s3: S3Config) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: directory.path().to_owned().into(),
        ..Config::default()
    };
    config.store.s3 = Some(s3);
    let mut missing = Vec::new();
    let each = |report: cachewfs_daemon::CollectionReport| {
        assert_eq!(report.error, None);
        missing.extend(report.missing_segments);
    };
    cachewfsd::daemon()
        .collect(&config, Vec::new(), true, each)
        .await
        .unwrap();
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_copied_pointers_first_while_daemons_publish() {
    let (Some(bucket), Some(backup)) = (s3_bucket(), s3_bucket()) else {
        return;
    };
    let daemon = start(bucket::config(&bucket)).await;
    let work = daemon.create_upstream();
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let published = daemon.get(&stable(), &[]).await.bytes().await.unwrap();

    let mut copied = copy(&bucket, &backup, ".git/current").await;
    commit_and_push(&work, "two");
    daemon.refresh().await;
    copied += copy(&bucket, &backup, ".git/snapshots/").await;
    let third = commit_and_push(&work, "three");
    daemon.refresh().await;
    assert_eq!(copied, 3, "a pointer and two manifests");
    copy(&bucket, &backup, ".git/segments/").await;

    let s3 = bucket::config(&backup);
    assert_eq!(missing(s3.clone()).await, [""; 0]);
    let daemon = replace(daemon, s3).await;
    let served = daemon.get(&stable(), &[]).await;
    assert_eq!(header(&served, "x-cachew-snapshot-commit"), first);
    assert!(served.bytes().await.unwrap() == published);
    assert_eq!(daemon.refresh().await["snapshot"], third);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_reported_and_can_be_put_back_or_rebuilt() {
    let Some(bucket) = s3_bucket() else { return };
    let s3 = bucket::config(&bucket);
    let daemon = start(s3.clone()).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 300_000));
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    let manifest = read(&bucket, &format!("v1/{REPO}.git/snapshots/{head}")).await;
    let manifest = Manifest::parse(&manifest).unwrap();
    let id = manifest.packs[0].pack.segment.id.to_string();
    let object = format!("v1/{REPO}.git/segments/{id}");
    let bytes = read(&bucket, &object).await;

    bucket.ask("DELETE", &object);
    assert_eq!(missing(s3.clone()).await, [id.as_str()]);
    bucket.put(&object, &bytes);
    assert_eq!(missing(s3.clone()).await, [""; 0]);

    bucket.ask("DELETE", &object);
    let relayout = format!("/api/v1/repos/{REPO}/relayout");
    assert_eq!(daemon.post(&relayout, "").await.status(), 200);
    let daemon = replace(daemon, s3).await;
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_match_its_pointer_is_not_served_and_can_be_forgotten() {
    let Some(bucket) = s3_bucket() else { return };
    let s3 = bucket::config(&bucket);
    let daemon = start(s3.clone()).await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    let object = format!("v1/{REPO}.git/snapshots/{head}");
    let good = read(&bucket, &object).await;
    let mut manifest = Manifest::parse(&good).unwrap();
    manifest.created_at += 1;
    bucket.put(&object, manifest.to_json().unwrap());

    let daemon = replace(daemon, s3.clone()).await;
    let refused = code(daemon.get(&stable(), &[]).await).await;
    assert_eq!(refused, (500, "store_failed".to_owned()));
    let refresh = format!("/git/{REPO}/refresh");
    let refused = code(daemon.post(&refresh, "").await).await;
    assert_eq!(refused, (500, "publish_failed".to_owned()));
    // Once the bucket has the right manifest again, the daemon drops its copy of the wrong one.
    bucket.put(&object, &good);
    assert_eq!(daemon.refresh().await["snapshot"], head);

    bucket.put(&object, manifest.to_json().unwrap());
    let daemon = replace(daemon, s3).await;
    let forget = format!("/api/v1/repos/{REPO}/forget?store=true");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    daemon.refresh().await;
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}
