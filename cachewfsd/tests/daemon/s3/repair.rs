//! Buckets with damaged or deleted objects: the next snapshot is complete and correct.

use std::fs;

use cachewfs_tests::{TestBucket, s3_bucket};

use crate::support::bucket::{config, objects, replace, start};
use crate::support::test_daemon::*;

/// Starts a daemon, and publishes one commit with `content` in a file. Returns the commit.
async fn start_published(bucket: &TestBucket, content: impl AsRef<[u8]>) -> (TestDaemon, String) {
    let daemon = start(bucket).await;
    let work = daemon.create_upstream();
    write_file(&work.join("file"), content);
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, first)
}

/// Reads an object.
async fn get(bucket: &TestBucket, object: &str) -> Vec<u8> {
    let url = format!("{}/{}/{object}", bucket.endpoint, bucket.name);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_damaged_in_the_bucket_is_found_and_stored_again() {
    let Some(bucket) = s3_bucket() else { return };
    let (daemon, first) = start_published(&bucket, noise(1, 300_000)).await;
    let packs = daemon.manifest(&first).packs;
    let longest = packs.iter().max_by_key(|pack| pack.pack.segment.len);
    let id = longest.unwrap().pack.segment.id;
    let object = format!("v1/{REPO}.git/segments/{id}");
    let good = get(&bucket, &object).await;
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    bucket.put(&object, &damaged);

    // A new replica restores its mirror from copies of the bucket, and finds the damage.
    let daemon = replace(daemon, config(&bucket)).await;
    let answer = daemon.refresh().await;
    assert_eq!(answer["moved"], true);
    let second = answer["snapshot"].as_str().unwrap();
    assert!(second.starts_with(&format!("{first}-")), "{second}");
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    assert!(get(&bucket, &object).await == good);

    let daemon = replace(daemon, config(&bucket)).await;
    assert_eq!(daemon.refresh().await["moved"], false);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    // The mirror has the packs of the snapshot, so it was restored and not cloned.
    let mirror = daemon.root.path().join(format!("data/mirrors/{REPO}.git"));
    for pack in daemon.manifest(second).packs {
        let name = pack.pack.name;
        assert!(mirror.join("objects/pack").join(&name).exists(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_copy_of_a_manifest_is_replaced() {
    let Some(bucket) = s3_bucket() else { return };
    let (daemon, first) = start_published(&bucket, "one\n").await;
    let copy = daemon.store().join("snapshots").join(&first);
    let good = fs::read(&copy).unwrap();

    // The restart clears the memory tier.
    let root = daemon.stop().await;
    write_file(&copy, "rotten");
    let s3 = config(&bucket);
    let daemon = TestDaemon::start_in(root, |config| config.store.s3 = Some(s3)).await;

    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    assert_eq!(daemon.refresh().await["moved"], false);
    assert!(fs::read(&copy).unwrap() == good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_snapshot_is_published_again_under_another_id() {
    let Some(bucket) = s3_bucket() else { return };
    let (daemon, first) = start_published(&bucket, "one\n").await;
    let immutable = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    assert_eq!(daemon.get(&immutable, &[]).await.status(), 200);

    let forget = format!("/api/v1/repos/{REPO}/forget?store=true");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);

    assert_eq!(daemon.get(&immutable, &[]).await.status(), 404);
    let again = daemon.refresh().await;
    let again = again["snapshot"].as_str().unwrap();
    assert!(again.starts_with(&format!("{first}-")), "{again}");
    assert_eq!(daemon.get(&immutable, &[]).await.status(), 404);
    // A daemon without a mirror of the repository can forget it, too, and repeatedly.
    let daemon = replace(daemon, config(&bucket)).await;
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    assert_eq!(objects(&bucket, "snapshots").len(), 0);
    let third = daemon.refresh().await;
    let third = third["snapshot"].as_str().unwrap();
    assert!(third != first && third != again, "{third}");
}
