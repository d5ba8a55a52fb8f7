//! Runs the contract: a directory, a real bucket, and tiers over both, plain and in each wrapper.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cachewfs_tests::{Fault, Proxy, TestBucket, s3_bucket};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{id, keeps_the_contract, repo};
use crate::metrics::{S3Operation, S3Outcome};
use crate::store::key::{Key, Object, ShelfPart};
use crate::store::testing::new_segment;
use crate::store::tier::Tier;
use crate::store::wrapped::{Count, Wrapped};
use crate::store::{DiskTier, NoticePeriod, S3Config, S3Tier, TierLimits, Tiers};

/// The wrapper of a tier.
#[derive(Clone, Copy, Debug)]
enum Wrapper {
    Nothing,
    /// Delays each call; its run also checks that calls are counted.
    Delaying,
    Failing,
    Cutting,
}

const WRAPPERS: [Wrapper; 4] = [
    Wrapper::Nothing,
    Wrapper::Delaying,
    Wrapper::Failing,
    Wrapper::Cutting,
];

impl Wrapper {
    fn wrap(self, tier: impl Tier + 'static, count: &Count) -> Arc<dyn Tier> {
        match self {
            Self::Nothing => Arc::new(tier),
            Self::Delaying => Arc::new(Wrapped::delaying(tier, count.clone())),
            Self::Failing => Arc::new(Wrapped::failing(tier)),
            Self::Cutting => Arc::new(Wrapped::cutting(tier)),
        }
    }

    /// Runs the contract with the tier that `build` makes of `tier` in this wrapper.
    async fn run(
        self,
        tier: impl Tier + 'static,
        directory: &TempDir,
        build: impl FnOnce(Arc<dyn Tier>) -> Arc<dyn Tier>,
    ) {
        let count = Count::default();
        let tier = build(self.wrap(tier, &count));
        let tmp = directory.path().join("new");
        std::fs::create_dir(&tmp).unwrap();

        let check = move || keeps_the_contract(&*tier, &tmp);
        let failures = tokio::task::spawn_blocking(check).await.unwrap();

        match self {
            Self::Nothing => assert_eq!(failures, 0),
            Self::Delaying => assert!(failures == 0 && count.take() > 100),
            Self::Failing | Self::Cutting => assert!(failures > 0),
        }
    }
}

fn disk(directory: &TempDir, name: &str) -> DiskTier {
    let root = directory.path().join(name);
    DiskTier::create(&root, &root.join("tmp")).unwrap()
}

async fn bucket(bucket: &TestBucket, endpoint: String, prefix: String) -> S3Tier {
    let config = S3Config {
        bucket: bucket.name.clone(),
        prefix,
        endpoint: Some(endpoint),
        credentials_file: Some(bucket.credentials.clone()),
        ..S3Config::default()
    };
    let stop = CancellationToken::new();
    let tier = S3Tier::open(&config, NoticePeriod::default(), stop).await;
    let tier = tier.unwrap();
    tier.probe().await.unwrap();
    tier
}

/// Returns tiers over `remote` that keep at most `limit` bytes on disk, with their background
/// tasks.
fn tiers(remote: Arc<dyn Tier>, directory: &TempDir, limit: u64) -> Arc<dyn Tier> {
    let local = disk(directory, "near");
    let limits = TierLimits {
        memory: 16 << 20,
        disk: limit,
    };
    let tmp = directory.path().join("near/tmp");
    let tiers = Tiers::new(remote, (local, tmp), limits);
    tiers.start(&TaskTracker::new(), &CancellationToken::new());
    Arc::new(tiers)
}

/// The limits of the disk: everything fits, or nothing.
const LIMITS: [u64; 2] = [1 << 30, 0];

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
            let over = |remote| tiers(remote, &directory, limit);
            wrapper.run(far, &directory, over).await;
        }
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_s3_tier_keeps_the_contract() {
    let Some(of_test) = s3_bucket() else { return };
    let runs = WRAPPERS.map(|wrapper| {
        let of_test = &of_test;
        async move {
            let directory = tempfile::tempdir().unwrap();
            let prefix = format!("in/{wrapper:?}");
            let tier = bucket(of_test, of_test.endpoint.clone(), prefix).await;
            wrapper.run(tier, &directory, |tier| tier).await;
        }
    });
    join_all(runs).await;

    let prefix = "in/Nothing/v1/example.com/create.git/";
    let listed = of_test.ask("GET", &format!("?list-type=2&prefix={prefix}"));
    assert!(listed.contains("/snapshots/"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_over_a_bucket_keep_the_contract() {
    let Some(of_test) = s3_bucket() else { return };
    // Each run takes a while. `tiers_over_a_directory_keep_the_contract` has all combinations.
    let chosen = [
        (Wrapper::Nothing, LIMITS[0]),
        (Wrapper::Nothing, LIMITS[1]),
        (Wrapper::Delaying, LIMITS[0]),
        (Wrapper::Failing, LIMITS[0]),
        (Wrapper::Cutting, LIMITS[1]),
    ];
    let runs = chosen.map(|(wrapper, limit)| {
        let of_test = &of_test;
        async move {
            let directory = tempfile::tempdir().unwrap();
            let prefix = format!("{wrapper:?}/{limit}");
            let far = bucket(of_test, of_test.endpoint.clone(), prefix).await;
            let over = |remote| tiers(remote, &directory, limit);
            wrapper.run(far, &directory, over).await;
        }
    });
    join_all(runs).await;
}

/// Responses that the network cuts are completed, so no caller sees a failure.
#[tokio::test(flavor = "multi_thread")]
async fn the_s3_tier_keeps_the_contract_where_long_answers_are_cut() {
    let Some(of_test) = s3_bucket() else { return };
    let proxy = Proxy::start(of_test.address);
    let directory = tempfile::tempdir().unwrap();
    let tier = bucket(&of_test, proxy.url(), "cut".to_owned()).await;
    let counted = tier.s3().unwrap();
    // Four tries must be enough for 4 MiB, on connections that have sent something before.
    proxy.set(Fault::CutAfter(3_000_000));

    Wrapper::Nothing.run(tier, &directory, |tier| tier).await;

    let cut = counted.count(S3Operation::GetRange, S3Outcome::Network);
    assert!(cut > 0);
}

#[test]
fn a_segment_that_was_set_aside_on_disk_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let tier = disk(&directory, "store");
    let damaged = new_segment(directory.path(), b"damaged");
    let repo = repo("aside");
    tier.create_segments(&repo, vec![damaged]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(100);
    let segment = tier.path(&Key::segment(&repo, id(b"damaged")));
    let segment = File::open(segment).unwrap();
    segment.set_modified(long_ago).unwrap();

    tier.set_aside(&repo, id(b"damaged")).unwrap();

    let listed = tier.list(&repo, ShelfPart::Segments).unwrap();
    assert_eq!(listed[0].object, Object::Damaged(id(b"damaged")));
    let age = listed[0].stat.stored_at.elapsed().unwrap_or_default();
    assert!(age < Duration::from_hours(1), "its time begins anew");
    assert!(File::open(tier.path(&Key::segment(&repo, id(b"damaged")))).is_err());
}
