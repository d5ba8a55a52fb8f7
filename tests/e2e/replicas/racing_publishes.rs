//! Two daemons, one bucket: both publish the same commit at the same time, again and again.
//!
//! `CACHEWFS_TEST_PUBLISHES=1000` makes as many rounds; they take about a second each:
//!
//! ```text
//! CACHEWFS_TEST_PUBLISHES=1000 cargo test -p cachewfs-tests --test e2e replicas::racing_publishes -- --nocapture
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
const LIMIT: Duration = Duration::from_mins(1);
/// Of all earlier URLs, so many are read again in each round.
const SAMPLE: usize = 2;

/// How many rounds there are; the figure of record is 1000.
fn rounds() -> u32 {
    let rounds = std::env::var("CACHEWFS_TEST_PUBLISHES").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(12)
}

fn start(site: &Site, bucket: &TestBucket, (name, lease_ttl): (&str, &str)) -> DaemonProcess {
    // Nothing is published but what the test asks for, and nothing grows too old.
    let (endpoint, credentials) = (&bucket.endpoint, bucket.credentials.display());
    let tables = format!(
        "[mirrors]\nretry_first = \"100ms\"\n[store]\nlease_ttl = \"{lease_ttl}\"\n[store.s3]\nbucket = \"{}\"\nendpoint = \"{endpoint}\"\n\
         credentials_file = \"{credentials}\"\n",
        bucket.name
    );
    let keys = "fetch_interval = \"1h\"\nref_check_interval = \"1h\"\nkeep_snapshots = 100000\n";
    DaemonProcess::start_with_config(&site.path().join(name), &site.upstreams(), (keys, &tables))
}

fn get(address: SocketAddr, path: &str) -> HttpAnswer {
    let answer = http_request(address, ("GET", path), &[], LIMIT).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

/// Has both publish at the same moment.
fn publish(addresses: [SocketAddr; 2], commit: &str) {
    let start = Barrier::new(2);
    let refresh = |address| {
        start.wait();
        // Who was beaten too often in a row says so, and is asked again, as any client would.
        wait_until("both have published", || {
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

/// How many snapshots a daemon has built, whether or not it was the first.
fn snapshots_built(address: SocketAddr) -> u32 {
    let metrics = get(address, "/metrics").text();
    let sample = "cachewfsd_publish_phase_seconds_count{phase=\"pack\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(sample));
    value.unwrap().parse().unwrap()
}

/// The snapshots that are in the bucket.
fn snapshots(bucket: &TestBucket) -> BTreeSet<String> {
    let keys = bucket.keys("v1/local/project.git/snapshots/");
    let name = |key: &String| key.rsplit('/').next().unwrap().to_owned();
    keys.iter().map(name).collect()
}

/// The digest of what a URL answers, the same from both.
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
    let Some(built) = publish_all("0s") else {
        return;
    };
    // That they really did so at once is what this is about.
    assert!(built > rounds() * 3 / 2, "{built}");
}

#[test]
fn a_commit_that_two_daemons_take_turns_to_publish_has_one_manifest() {
    publish_all("30s");
}

/// Makes all rounds; gives how many snapshots the two built.
fn publish_all(lease_ttl: &str) -> Option<u32> {
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
        publish(addresses, &commit);

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
        "{} commits published by both at once in {:?}; they built {built} snapshots",
        seen.len(),
        began.elapsed()
    );
    Some(built)
}
