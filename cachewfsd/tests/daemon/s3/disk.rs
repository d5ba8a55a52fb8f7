//! Copies of a bucket on a disk that is too small: the daemon evicts them if anything else needs
//! the space.

use cachewfs_tests::{SmallDisk, bytes_below, s3_bucket};
use serde_json::Value;

use crate::support::bucket::config;
use crate::support::test_daemon::*;

const MIB: usize = 1 << 20;

/// Pushes a repository with one file to upstream, and makes the daemon mirror and publish it.
/// Returns its commit.
async fn publish_new(daemon: &TestDaemon, name: &str, file: &[u8]) -> String {
    let work = daemon.create_upstream_at(&format!("org/{name}"), name);
    write_file(&work.join("file"), file);
    let commit = commit_and_push(&work, "one");
    let path = format!("/git/git.example.com/org/{name}/refresh");
    let answer = daemon.post(&path, "").await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{name}: {status}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["snapshot"], commit);
    commit
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_fill_the_disk_are_evicted_for_fetches_and_publishes() {
    let Some(bucket) = s3_bucket() else { return };
    let Some(disk) = SmallDisk::mount("48m") else {
        return;
    };
    let daemon = TestDaemon::start_with(|all| {
        all.store.s3 = Some(config(&bucket));
        all.data_dir = disk.path().join("data").into();
    })
    .await;
    let taken_by = |what: &str| bytes_below(&disk.path().join("data").join(what));
    let mirrors_and_copies = || taken_by("mirrors") + taken_by("store");

    // Each file is once in a mirror and twice in copies. All of them exceed the disk.
    let mut most_copies = 0;
    for number in 1..=6 {
        let name = format!("small{number}");
        publish_new(&daemon, &name, &noise(number, 5 * MIB / 2)).await;
        most_copies = taken_by("store").max(most_copies);
    }
    assert!(most_copies > 15 << 20, "{most_copies}");
    // This file is so large that the disk fills between two checks of the free space.
    let large = noise(9, 5 * MIB);
    publish_new(&daemon, "large", &large).await;

    assert!(mirrors_and_copies() < 46 << 20);
    let archive = daemon
        .get("/git/git.example.com/org/large/snapshot.tar.zst", &[])
        .await;
    let clone = untar(&archive.bytes().await.unwrap(), daemon.root.path());
    assert_good_clone(&clone);
    assert!(std::fs::read(clone.join("file")).unwrap() == large);
    daemon.running.shutdown.cancel();
    daemon.running.stopped().await;
}
