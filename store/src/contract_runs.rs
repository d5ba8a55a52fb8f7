//! Runs the contract: a directory, and copies of a directory, plain and in each wrapper. The crate
//! `s3` runs it with a bucket.

use std::fs::File;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use crate::contract::runs::{LIMITS, WRAPPERS, copies, disk};
use crate::contract::{id, repo};
use crate::testing::{ObjectsNow as _, new_segment};
use crate::{Key, Object, ShelfPart};

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_tier_keeps_the_contract() {
    for wrapper in WRAPPERS {
        let directory = tempfile::tempdir().unwrap();
        wrapper
            .run(disk(&directory, "store"), &directory, |tier| tier)
            .await;

        let tmp = directory.path().join("store/tmp");
        assert_eq!(tmp.read_dir().unwrap().count(), 0, "nothing is left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_over_a_directory_keep_the_contract() {
    let runs = WRAPPERS.map(|wrapper| async move {
        for limit in LIMITS {
            let directory = tempfile::tempdir().unwrap();
            let far = disk(&directory, "far");
            let over = |remote| copies(remote, &directory, limit);
            wrapper.run(far, &directory, over).await;
        }
    });
    join_all(runs).await;
}

#[test]
fn a_segment_that_was_set_aside_on_disk_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let tier = disk(&directory, "store");
    let damaged = new_segment(directory.path(), b"damaged");
    let repo = repo("aside");
    tier.create_segments(&repo, vec![damaged]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(100);
    let segment = tier.directory().path(&Key::segment(&repo, id(b"damaged")));
    let segment = File::open(segment).unwrap();
    segment.set_modified(long_ago).unwrap();

    tier.set_aside(&repo, id(b"damaged")).unwrap();

    let listed = tier.list(&repo, ShelfPart::Segments).unwrap();
    assert_eq!(listed[0].object, Object::Damaged(id(b"damaged")));
    let age = listed[0].stat.stored_at.elapsed().unwrap_or_default();
    assert!(age < Duration::from_hours(1), "its time begins anew");
    assert!(File::open(tier.directory().path(&Key::segment(&repo, id(b"damaged")))).is_err());
}
