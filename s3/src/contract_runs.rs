//! Runs the contract of the store's tiers with a real bucket, and with copies of one.

use cachewfs_tests::{Fault, Proxy, TestBucket, s3_bucket};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::S3Tier;
use crate::contract::runs::{LIMITS, WRAPPERS, Wrapper, copies};
use crate::{BucketOperation, BucketOutcome, BucketTier, NoticePeriod, S3Config};

async fn bucket(bucket: &TestBucket, endpoint: String, prefix: String) -> BucketTier {
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
    tier.into()
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
            let over = |remote| copies(remote, &directory, limit);
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
    let counted = std::sync::Arc::clone(&tier.metrics);
    // Four tries must be enough for 4 MiB, on connections that have sent something before.
    proxy.set(Fault::CutAfter(3_000_000));

    Wrapper::Nothing.run(tier, &directory, |tier| tier).await;

    let cut = counted.count(BucketOperation::GetRange, BucketOutcome::Network);
    assert!(cut > 0);
}
