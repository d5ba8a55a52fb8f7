//! Daemons whose store is in a bucket.

use std::collections::BTreeSet;
use std::fs;

use cachewfs_daemon::S3Config;
use cachewfs_tests::TestBucket;

use super::test_daemon::*;

pub(crate) fn config(bucket: &TestBucket) -> S3Config {
    S3Config {
        bucket: bucket.name.clone(),
        endpoint: Some(bucket.endpoint.clone()),
        credentials_file: Some(bucket.credentials.clone()),
        ..S3Config::default()
    }
}

pub(crate) async fn start(bucket: &TestBucket) -> TestDaemon {
    let s3 = config(bucket);
    TestDaemon::start_with(|config| config.store.s3 = Some(s3)).await
}

/// Replaces the daemon by a new replica with an empty data directory.
pub(crate) async fn replace(daemon: TestDaemon, s3: S3Config) -> TestDaemon {
    let root = daemon.stop().await;
    fs::remove_dir_all(root.path().join("data")).unwrap();
    TestDaemon::start_in(root, |config| config.store.s3 = Some(s3)).await
}

/// Returns the names of the objects of the repository below `part`.
pub(crate) fn objects(bucket: &TestBucket, part: &str) -> BTreeSet<String> {
    let prefix = format!("v1/{REPO}.git/{part}/");
    let answer = bucket.ask("GET", &format!("?list-type=2&prefix={prefix}"));
    let keys = answer.split("<Key>").skip(1);
    let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
    keys.map(|(key, _)| key.strip_prefix(&prefix).unwrap().to_owned())
        .collect()
}
