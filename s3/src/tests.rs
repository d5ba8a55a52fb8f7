//! Tests of the S3 tier against a real server.

use std::time::{Duration, Instant};

use cachewfs_base::chain;
use cachewfs_format::{ObjectId, SegmentId, SnapshotId};
use cachewfs_tests::{Fault, Proxy, TestBucket, s3_bucket, wait_until};
use tokio_util::sync::CancellationToken;

use super::{
    BucketOperation, BucketOutcome, BucketTier, Key, NoticePeriod, Object, S3Config, S3Error,
    S3Tier, TierError, Written,
};
use crate::testing::{ObjectsNow as _, new_segment, noise, shelf};

fn config(bucket: &TestBucket) -> S3Config {
    S3Config {
        bucket: bucket.name.clone(),
        prefix: "a/prefix".to_owned(),
        endpoint: Some(bucket.endpoint.clone()),
        credentials_file: Some(bucket.credentials.clone()),
        ..S3Config::default()
    }
}

/// Returns a proxy that can do harm, and the configuration that uses it.
fn through_proxy(bucket: &TestBucket) -> (Proxy, S3Config) {
    let proxy = Proxy::start(bucket.address);
    let config = S3Config {
        endpoint: Some(proxy.url()),
        ..config(bucket)
    };
    (proxy, config)
}

async fn tier(bucket: &TestBucket) -> S3Tier {
    open(&config(bucket)).await
}

async fn open(config: &S3Config) -> S3Tier {
    let tier = S3Tier::open(config, NoticePeriod::default(), CancellationToken::new())
        .await
        .unwrap();
    tier.probe().await.unwrap();
    tier
}

/// Runs blocking work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Reads 400,000 bytes through `tier`.
fn read(tier: &S3Tier, key: &Key) -> Result<Vec<u8>, TierError> {
    let mut bytes = vec![0; 400_000];
    tier.read_at(key, 1000, &mut bytes)?;
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn long_segments_are_sent_and_read_in_parts() {
    let Some(bucket) = s3_bucket() else { return };
    let tier = tier(&bucket).await;
    let tmp = tempfile::tempdir().unwrap();
    let content = noise(3, (20 << 20) + 7);
    let new = [(); 2].map(|()| vec![new_segment(tmp.path(), &content)]);

    blocking(move || {
        let key = Key::segment(&shelf(), new[0][0].id);
        let [first, again] = new.map(|new| tier.create_segments(&shelf(), new).unwrap());
        let mut whole = vec![0; content.len()];
        tier.read_at(&key, 0, &mut whole).unwrap();

        assert_eq!((first, again), (content.len() as u64, 0));
        assert!(whole == content);
        // A damaged segment doesn't exist until it is stored again.
        tier.set_aside(&shelf(), key_id(&key)).unwrap();
        assert!(tier.stat(&key).unwrap().is_none());
        let again = vec![new_segment(tmp.path(), &content)];
        let len = content.len() as u64;
        assert_eq!(tier.create_segments(&shelf(), again).unwrap(), len);
        assert_eq!(tier.stat(&key).unwrap().unwrap().len, len);
    })
    .await;
}

fn key_id(key: &Key) -> SegmentId {
    match key.object {
        Object::Segment(id) => id,
        other => panic!("{other:?} is no segment"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_that_is_sent_is_counted() {
    let Some(bucket) = s3_bucket() else { return };
    let (proxy, config) = through_proxy(&bucket);
    let tier = open(&config).await;
    let tmp = tempfile::tempdir().unwrap();
    let [small, long] = [500_000, 9 << 20].map(|len| noise(3, len));
    let new = |bytes| vec![new_segment(tmp.path(), bytes)];
    let news = [new(&small), new(&small), new(&long), new(&long)];
    let key = Key::segment(&shelf(), news[0][0].id);
    let absent = Key::segment(&shelf(), SegmentId(cachewfs_format::Digest::of(b"nothing")));

    blocking(move || {
        let counted = BucketTier::from(tier.clone()).metrics;
        let sent_before = counted.sent_bytes.value();
        let puts_before = counted.count(BucketOperation::Put, BucketOutcome::Condition);
        for new in news {
            tier.create_segments(&shelf(), new).unwrap();
        }
        tier.stat(&absent).unwrap();
        let received_before = counted.received_bytes.value();
        read(&tier, &key).unwrap();

        let count = |operation, outcome| counted.count(operation, outcome);
        let refused = count(BucketOperation::Put, BucketOutcome::Condition) - puts_before;
        assert_eq!(refused, 1, "the second of the small ones");
        // A long segment is looked for before it is sent.
        assert_eq!(count(BucketOperation::Head, BucketOutcome::Ok), 1);
        assert_eq!(count(BucketOperation::Head, BucketOutcome::Absent), 2);
        for (operation, requests) in [
            (BucketOperation::Begin, 1),
            (BucketOperation::Part, 2),
            (BucketOperation::Complete, 1),
            (BucketOperation::Abort, 0),
        ] {
            assert_eq!(
                count(operation, BucketOutcome::Ok),
                requests,
                "{operation:?}"
            );
        }
        assert_eq!(
            counted.sent_bytes.value() - sent_before,
            2 * 500_000 + (9 << 20)
        );
        assert_eq!(counted.received_bytes.value() - received_before, 400_000);

        proxy.set(Fault::Unavailable);
        read(&tier, &key).unwrap_err();
        read(&tier, &key).unwrap_err();
        // Four tries. The next caller fails without one.
        assert_eq!(count(BucketOperation::GetRange, BucketOutcome::Server), 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_costs_tries_and_never_a_wrong_byte() {
    let Some(bucket) = s3_bucket() else { return };
    let (proxy, config) = through_proxy(&bucket);
    let through = S3Config {
        timeout: Duration::from_millis(1500),
        ..config
    };
    let tier = open(&through).await;
    let tmp = tempfile::tempdir().unwrap();
    let content = noise(3, 500_000);
    let new = new_segment(tmp.path(), &content);
    let key = Key::segment(&shelf(), new.id);

    blocking(move || {
        tier.create_segments(&shelf(), vec![new]).unwrap();
        let expected = &content[1000..401_000];
        // A retry continues where the response was cut.
        proxy.set(Fault::CutAfter(150_000));
        assert!(read(&tier, &key).unwrap() == expected);
        for fault in [Fault::CutAfter(20_000), Fault::Unavailable, Fault::Stall] {
            proxy.set(fault);
            let error = read(&tier, &key).unwrap_err();
            assert!(error.is_outage(), "{fault:?}: {error:?}");
            // Others fail at once.
            let error = read(&tier, &key).unwrap_err();
            assert!(
                chain(&error).ends_with(&S3Error::Down.to_string()),
                "{fault:?}: {error:?}"
            );
            proxy.set(Fault::None);
            wait_until("the bucket is tried again", || {
                read(&tier, &key).is_ok_and(|bytes| bytes == expected)
            });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wins_is_told_so_when_the_answer_was_lost() {
    let Some(bucket) = s3_bucket() else { return };
    let (proxy, config) = through_proxy(&bucket);
    let tier = open(&config).await;
    let snapshot = SnapshotId::first(ObjectId::from_bytes(&[1; 20]).unwrap());
    let manifest = Key::manifest(&shelf(), snapshot);
    let object = format!("a/prefix/{manifest}");

    blocking(move || {
        proxy.set(Fault::CutAfter(0));
        let (bucket, object) = (&bucket, &object);
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| tier.create(&manifest, b"mine"));
            wait_until("it is written", || {
                bucket.ask("GET", object).starts_with("HTTP/1.1 200")
            });
            proxy.set(Fault::None);
            writer.join().unwrap()
        });

        assert_eq!(written.unwrap(), Written::New);
        let other = tier.create(&manifest, b"another's").unwrap();
        assert_eq!(other, Written::TooLate);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_given_up_after_a_fourth_of_the_notice() {
    let Some(bucket) = s3_bucket() else { return };
    let (proxy, config) = through_proxy(&bucket);
    let through = S3Config {
        // The second delete waits for a permit.
        max_requests: 1,
        ..config
    };
    let notice = NoticePeriod(Duration::from_secs(8));
    let stop = CancellationToken::new();
    let tier = S3Tier::open(&through, notice, stop).await.unwrap();
    tier.probe().await.unwrap();
    let keys = [b"a", b"b"].map(|name| {
        let id = SegmentId(cachewfs_format::Digest::of(name));
        Key::segment(&shelf(), id)
    });

    blocking(move || {
        proxy.set(Fault::Stall);
        let began = Instant::now();
        let error = tier.delete(&keys).unwrap_err();
        let took = began.elapsed();

        assert!(error.is_outage(), "{error:?}");
        // Two seconds, with a margin for a busy machine. One request may take 20.
        assert!(took < Duration::from_secs(8), "{took:?}");
        proxy.set(Fault::None);
        tier.delete(&keys).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_changed_on_its_way_is_refused() {
    let Some(bucket) = s3_bucket() else { return };
    let (proxy, config) = through_proxy(&bucket);
    let tier = open(&config).await;
    let tmp = tempfile::tempdir().unwrap();
    // One is sent in one request, the other one in parts.
    let contents = [500_000, 9 << 20].map(|len| noise(3, len));

    blocking(move || {
        for content in contents {
            let [changed, whole] = [(); 2].map(|()| vec![new_segment(tmp.path(), &content)]);
            let key = Key::segment(&shelf(), changed[0].id);
            // The head of the request is much shorter, so the content is hit.
            proxy.set(Fault::CorruptSentEvery(100_000));
            let error = tier.create_segments(&shelf(), changed).unwrap_err();
            let error = chain(&error);
            assert!(error.contains("BadDigest"), "{error}");
            proxy.set(Fault::None);
            assert!(tier.stat(&key).unwrap().is_none());
            tier.create_segments(&shelf(), whole).unwrap();
            assert!(read(&tier, &key).unwrap() == content[1000..401_000]);
        }
    })
    .await;
}
