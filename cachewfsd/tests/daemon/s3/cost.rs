//! The cost of a publish to a bucket: requests and bytes, as the daemon counts them.

use std::collections::BTreeMap;

use cachewfs_tests::s3_bucket;

use crate::support::bucket::config;
use crate::support::test_daemon::*;

/// The counters of `/metrics` for the bucket: requests by operation and outcome, retries, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) requests: BTreeMap<String, u64>,
    retries: u64,
    up_bytes: u64,
    down_bytes: u64,
}

impl Cost {
    pub(crate) async fn so_far(daemon: &TestDaemon) -> Self {
        let page = daemon.get("/metrics", &[]).await.text().await.unwrap();
        let mut cost = Self::default();
        for line in page
            .lines()
            .filter(|line| line.starts_with("cachewfsd_s3_"))
        {
            let Some((sample, value)) = line.split_once("} ") else {
                continue;
            };
            let value: u64 = value.parse().unwrap();
            let label = |name: &str| {
                let (_, rest) = sample.split_once(&format!("{name}=\"")).unwrap();
                rest.split('"').next().unwrap().to_owned()
            };
            match sample.split('{').next().unwrap() {
                "cachewfsd_s3_requests_total" => {
                    let operation = format!("{} {}", label("operation"), label("outcome"));
                    cost.requests.insert(operation, value);
                }
                "cachewfsd_s3_retries_total" => cost.retries += value,
                "cachewfsd_s3_bytes_total" if label("direction") == "up" => cost.up_bytes = value,
                "cachewfsd_s3_bytes_total" => cost.down_bytes = value,
                _ => {}
            }
        }
        cost
    }

    /// Returns the difference between the current counters and `before`.
    pub(crate) async fn since(daemon: &TestDaemon, before: &Self) -> Self {
        let now = Self::so_far(daemon).await;
        let of_before = |operation: &str| before.requests.get(operation).copied().unwrap_or(0);
        let requests = now.requests.into_iter();
        let requests = requests.map(|(operation, count)| {
            let more = count - of_before(&operation);
            (operation, more)
        });
        Self {
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            retries: now.retries - before.retries,
            up_bytes: now.up_bytes - before.up_bytes,
            down_bytes: now.down_bytes - before.down_bytes,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// Publishes the pushed commits. Returns the cost.
async fn publish(daemon: &TestDaemon) -> Cost {
    let before = Cost::so_far(daemon).await;
    daemon.refresh().await;
    Cost::since(daemon, &before).await
}

/// Returns the number of stored segments, and the bytes of all snapshots and segments.
fn stored_segments_and_bytes(daemon: &TestDaemon) -> (u64, u64) {
    let segments = std::fs::read_dir(daemon.store().join("segments")).unwrap();
    (segments.count() as u64, daemon.stored_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_costs_few_requests_besides_those_for_new_segments() {
    let Some(bucket) = s3_bucket() else { return };
    let s3 = config(&bucket);
    let daemon = TestDaemon::start_with(|config| config.store.s3 = Some(s3)).await;
    let work = daemon.create_upstream();
    for number in 0..400_u64 {
        let path = format!("directory-{}/file-{number}", number % 20);
        write_file(&work.join(path), noise(number, 5000));
    }
    commit_and_push(&work, "one");

    let first = publish(&daemon).await;
    let (segments, bytes) = stored_segments_and_bytes(&daemon);
    println!("first publish, {segments} segments, {bytes} bytes: {first:?}");
    write_file(&work.join("directory-3/new"), "one line\n");
    commit_and_push(&work, "two");
    let second = publish(&daemon).await;
    let (all_segments, all_bytes) = stored_segments_and_bytes(&daemon);
    let (new_segments, new_bytes) = (all_segments - segments, all_bytes - bytes);
    println!("one commit later, {new_segments} segments, {new_bytes} bytes: {second:?}");
    let idle = publish(&daemon).await;
    println!("an update without changes: {idle:?}");

    // Besides the segments: manifest, lease, deletion notices, two listings, and several reads of
    // the pointer. Measured: 12 and 13 requests. A slow machine reads the pointer more often.
    assert!(first.total() <= segments + 16, "{first:?}");
    assert!(second.total() <= new_segments + 17, "{second:?}");
    assert!(idle.total() <= 4, "{idle:?}");
    // A pointer has a few hundred bytes.
    assert!(first.up_bytes <= bytes + 2_000, "{first:?}");
    assert!(second.up_bytes <= new_bytes + 12_000, "{second:?}");
    assert_eq!(idle.up_bytes, 0);
    for cost in [&first, &second, &idle] {
        assert!(cost.down_bytes <= 4_000 && cost.retries == 0, "{cost:?}");
    }
}
