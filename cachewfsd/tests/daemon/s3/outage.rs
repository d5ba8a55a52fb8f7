//! Outages of the bucket: refused connections first, then silence. Meanwhile the daemon serves its
//! local copies. Afterwards it publishes the pushed commits without a request.

use std::time::{Duration, Instant};

use cachewfs_daemon::S3Config;
use cachewfs_tests::{Fault, Proxy, s3_bucket};

use crate::support::bucket::config;
use crate::support::test_daemon::*;

/// How long each kind of outage lasts at least. `CACHEWFS_OUTAGE_SECONDS` sets it for a manual run.
fn outage() -> Duration {
    let seconds = std::env::var("CACHEWFS_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(0, |seconds| seconds.parse().unwrap()))
}

/// At least this many times, a client reads both archives during an outage.
const ROUNDS: usize = 20;

/// The timeout of each try of a request to the bucket. A request is tried up to four times, so a
/// client that had to wait for one would exceed `LONGEST_READ`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of a response that needs no bucket, even on a busy machine.
const LONGEST_READ: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn commits_pushed_during_an_outage_are_published_after_it() {
    let Some(bucket) = s3_bucket() else { return };
    let proxy = Proxy::start(bucket.address);
    let through = S3Config {
        endpoint: Some(proxy.url()),
        timeout: TIMEOUT,
        connect_timeout: TIMEOUT,
        ..config(&bucket)
    };
    let daemon = TestDaemon::start_with(|all| {
        all.store.s3 = Some(through);
        all.fetch_interval = Duration::from_millis(500);
        all.mirrors.retry_first = Duration::from_millis(500);
        all.mirrors.retry_max = Duration::from_secs(10);
    })
    .await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 3_000_000));
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let published = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    let immutable = format!("/git/{REPO}/snapshot/{first}.tar.zst");

    let mut last = first;
    for fault in [Fault::CutAfter(0), Fault::Stall] {
        proxy.set(fault);
        write_file(&work.join("small"), format!("{fault:?}"));
        let pushed = commit_and_push(&work, "pushed in an outage");
        let (until, mut longest, mut reads) = (Instant::now() + outage(), Duration::ZERO, 0);
        let has_followed = async || daemon.status().await["refs"]["head"] == pushed;
        // The mirror follows upstream without the bucket.
        while reads < 2 * ROUNDS || Instant::now() < until || !has_followed().await {
            let limit = until + Duration::from_secs(30);
            assert!(Instant::now() < limit, "{}", daemon.status().await);
            for (path, range) in [(&immutable, 1_000_000), (&stable(), 2_000_000)] {
                let range = range..range + 100_000;
                let header = format!("bytes={}-{}", range.start, range.end - 1);
                let began = Instant::now();
                let part = daemon.get(path, &[("range", &header)]).await;
                assert_eq!(part.status(), 206);
                let part = part.bytes().await.unwrap();
                assert!(part.len() == 100_000);
                if path == &immutable {
                    assert!(part == published[range]);
                }
                (longest, reads) = (longest.max(began.elapsed()), reads + 1);
            }
            // The replica stays ready, because it can still serve its copies.
            assert_eq!(daemon.get("/readyz", &[]).await.status(), 200);
        }
        println!("{fault:?}: {reads} reads, the longest took {longest:?}");
        assert!(longest < LONGEST_READ, "{longest:?}");
        let status = daemon.status().await;
        assert_eq!(status["published"]["snapshot"], last, "{status}");

        proxy.set(Fault::None);
        let back = Instant::now();
        daemon
            .status_when(|status| status["published"]["snapshot"] == pushed)
            .await;
        println!("published {:?} after the end of the outage", back.elapsed());
        last = pushed;
    }
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}
