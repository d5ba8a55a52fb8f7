//! A bucket with hundreds of repositories: each replica lists all of them with few requests.

use std::time::Instant;

use cachewfs_daemon::S3Config;
use cachewfs_tests::{Fault, Proxy, s3_bucket};
use serde_json::Value;

use crate::s3::cost::Cost;
use crate::support::bucket::config;
use crate::support::test_daemon::*;

const COUNT: u64 = 300;

async fn read(daemon: &TestDaemon, path: &str) -> Value {
    let text = daemon.get(path, &[]).await.text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns how many repositories are listed. Checks that all of them are published.
async fn listed_repositories(daemon: &TestDaemon) -> u64 {
    let list = read(daemon, "/api/v1/repos").await;
    let repos = list["repos"].as_array().unwrap();
    assert!(repos.iter().all(|repo| !repo["published"].is_null()));
    repos.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_lists_all_repositories_of_the_bucket_for_few_requests() {
    let Some(bucket) = s3_bucket() else { return };
    let s3 = config(&bucket);
    let publisher = TestDaemon::start_with(|all| all.store.s3 = Some(s3)).await;
    let work = publisher.create_upstream();
    commit_and_push(&work, "one");
    publisher.refresh().await;
    let pointer = bucket.ask("GET", &format!("v1/{REPO}.git/current"));
    let (_, pointer) = pointer.split_once("\r\n\r\n").unwrap();
    for number in 0..COUNT {
        let path = format!("git.example.com/group-{}/repo-{number}.git", number % 10);
        bucket.put(&format!("v1/{path}/current"), pointer);
    }
    // Two repositories that must not be listed: one is not published, one is of an unknown host.
    let segment = format!("segments/{}", "0".repeat(64));
    bucket.put(&format!("v1/git.example.com/begun.git/{segment}"), "x");
    bucket.put("v1/other.example.com/a.git/current", pointer);
    let proxy = Proxy::start(bucket.address);
    let through = S3Config {
        endpoint: Some(proxy.url()),
        ..config(&bucket)
    };

    let s3 = through.clone();
    let replica = TestDaemon::start_with(|all| all.store.s3 = Some(s3)).await;
    let before = Cost::so_far(&replica).await;
    let began = Instant::now();
    assert_eq!(listed_repositories(&replica).await, COUNT + 1);
    let first = Cost::since(&replica, &before).await;
    println!("the first listing: {:?}, {first:?}", began.elapsed());
    // One listing of the hosts, one for each of the two hosts, and one for each of eleven groups.
    assert_eq!(first.requests["list ok"], 14, "{first:?}");
    // Two pointers for each repository: of snapshots and of LFS archives.
    assert!(first.total() <= 14 + 2 * (COUNT + 3), "{first:?}");

    // The daemon caches the listing for a while, so the list and the status page send no requests.
    let before = Cost::so_far(&replica).await;
    let began = Instant::now();
    assert_eq!(listed_repositories(&replica).await, COUNT + 1);
    let report = read(&replica, "/api/v1/status").await;
    println!("both pages: {:?}", began.elapsed());
    assert_eq!(report["repositories_total"], COUNT + 1);
    let repositories = report["repositories"].as_array().unwrap();
    assert_eq!(repositories.len() as u64, COUNT + 1);
    assert_eq!(repositories[0]["has_mirror"], false);
    let page = replica.get("/", &[]).await.text().await.unwrap();
    assert!(page.contains("git.example.com/group-3/repo-123"), "{page}");
    let again = Cost::since(&replica, &before).await;
    assert_eq!(again.total(), 0, "{again:?}");

    // Without the bucket, a replica lists the repositories that it knew, even after a restart.
    proxy.set(Fault::Unavailable);
    assert_eq!(listed_repositories(&replica).await, COUNT + 1);
    let root = replica.stop().await;
    let replica = TestDaemon::start_in(root, |all| all.store.s3 = Some(through)).await;
    assert_eq!(listed_repositories(&replica).await, COUNT + 1);
}
