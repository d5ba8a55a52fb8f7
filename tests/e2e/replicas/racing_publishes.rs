//! Two daemons with one bucket publish the same commits: both at once, or in turn with a lease.
//!
//! `CACHEWFS_TEST_PUBLISHES` sets the number of rounds. Each takes about a second:
//!
//! ```text
//! CACHEWFS_TEST_PUBLISHES=1000 \
//!     cargo test -p cachewfs-tests --test e2e replicas::racing_publishes -- --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cachewfs_format::Digest;
use cachewfs_tests::{
    DaemonProcess, Dice, GitRepo, HttpAnswer, Site, TestBucket, git, http_request, s3_bucket,
    wait_until,
};

const REPO: &str = "/git/local/project";
/// How long one request may take, with the publish that it waits for.
const LIMIT: Duration = Duration::from_mins(1);
/// How many of the earlier URLs are read again in each round.
const SAMPLE: usize = 2;

/// Returns the number of rounds. For a release it is 1000.
fn rounds() -> u32 {
    let rounds = std::env::var("CACHEWFS_TEST_PUBLISHES").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(12)
}

fn start(site: &Site, bucket: &TestBucket, (name, lease_ttl): (&str, &str)) -> DaemonProcess {
    // Long intervals: the daemons publish only when the test asks. Many snapshots are kept: none
    // expires.
    let (endpoint, credentials) = (&bucket.endpoint, bucket.credentials.display());
    let tables = format!(
        "[keep]\nsnapshots = 100000\n[mirrors]\nretry_max = \"1s\"\n[store]\nlease_ttl = \"{lease_ttl}\"\n\
         [store.s3]\nbucket = \"{}\"\nendpoint = \"{endpoint}\"\n\
         credentials_file = \"{credentials}\"\n",
        bucket.name
    );
    let keys = "fetch_interval = \"1h\"\nref_check_interval = \"1h\"\n";
    DaemonProcess::start_with_config(&site.path().join(name), &site.upstreams(), (keys, &tables))
}

fn get(address: SocketAddr, path: &str) -> HttpAnswer {
    let answer = http_request(address, ("GET", path), &[], LIMIT).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

/// Has both daemons publish `commit` at the same moment, and waits until both have answered with
/// it.
fn publish_with_both(addresses: [SocketAddr; 2], commit: &str) {
    let start = Barrier::new(2);
    let refresh = |address| {
        start.wait();
        // 503: the other daemon has published first too often in a row. Clients retry then.
        wait_until("the daemon has published the commit", || {
            let path = format!("{REPO}/refresh");
            let answer = http_request(address, ("POST", &path), &[], LIMIT).unwrap();
            assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
            answer.status == 200 && answer.text().contains(commit)
        });
    };
    thread::scope(|scope| {
        for address in addresses {
            scope.spawn(move || refresh(address));
        }
    });
}

/// Returns how many snapshots a daemon has built, also those that the other daemon published first.
fn snapshots_built(address: SocketAddr) -> u32 {
    let metrics = get(address, "/metrics").text();
    let sample = "cachewfsd_publish_phase_seconds_count{phase=\"pack\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(sample));
    value.unwrap().parse().unwrap()
}

/// Returns the names of the snapshots in the bucket.
fn snapshots(bucket: &TestBucket) -> BTreeSet<String> {
    let keys = bucket.keys("v1/local/project.git/snapshots/");
    let name = |key: &String| key.rsplit('/').next().unwrap().to_owned();
    keys.iter().map(name).collect()
}

/// Returns the digest of the body at `url`. Panics unless both daemons answer with the same bytes
/// and `ETag`.
fn digest(addresses: [SocketAddr; 2], url: &str) -> Digest {
    let [one, two] = addresses.map(|address| get(address, url));
    assert!(one.body == two.body, "{url} has two contents");
    assert_eq!(one.header("etag"), two.header("etag"), "{url}");
    Digest::of(&one.body)
}

fn push(repo: &mut GitRepo, dice: &mut Dice, round: u32) -> String {
    repo.write(format!("src/file{}", dice.below(20)), &dice.noise(2000));
    repo.write("round", round.to_string().as_bytes());
    let commit = repo.commit(&format!("round {round}"));
    git(&repo.work, &["push", "-q", "origin", "main"]);
    commit
}

#[test]
fn a_commit_that_two_daemons_publish_at_once_has_one_manifest() {
    let Some(built) = run_rounds("0s") else {
        return;
    };
    // Both built most snapshots: so they really published at the same time.
    assert!(built > rounds() * 3 / 2, "{built}");
}

#[test]
fn a_commit_that_two_daemons_take_turns_to_publish_has_one_manifest() {
    run_rounds("30s");
}

/// Runs all rounds. Returns how many snapshots the two daemons built, or `None` without an S3
/// server.
fn run_rounds(lease_ttl: &str) -> Option<u32> {
    let bucket = s3_bucket()?;
    let site = Site::default();
    let mut repo = site.repo("project");
    let daemons = ["one", "two"].map(|name| start(&site, &bucket, (name, lease_ttl)));
    let addresses = daemons.each_ref().map(DaemonProcess::address);
    let mut dice = Dice::new(4);
    let mut seen = BTreeMap::new();
    let mut before = BTreeSet::new();
    let began = Instant::now();

    for round in 0..rounds() {
        let commit = push(&mut repo, &mut dice, round);
        publish_with_both(addresses, &commit);

        let now = snapshots(&bucket);
        let new: Vec<_> = now.difference(&before).collect();
        assert_eq!(new, [&commit], "round {round}");
        before = now;
        let url = format!("{REPO}/snapshot/{commit}.tar.zst");
        seen.insert(url.clone(), digest(addresses, &url));
        let urls: Vec<_> = seen.keys().cloned().collect();
        for url in (0..SAMPLE).map(|_| dice.pick(&urls)) {
            assert_eq!(seen[url], digest(addresses, url), "{url} has changed");
        }
    }

    for (url, first_digest) in &seen {
        assert_eq!(*first_digest, digest(addresses, url), "{url} has changed");
    }
    let built: u32 = addresses.into_iter().map(snapshots_built).sum();
    println!(
        "{} commits published by two daemons in {:?}; together they built {built} snapshots",
        seen.len(),
        began.elapsed()
    );
    Some(built)
}
