//! Three replicas mirror 20 repositories that change all the time. Processes, networks and disks
//! fail, and no client sees a wrong byte.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cachewfs_tests::{Dice, Site, can_mount, s3_bucket, wait_up_to};

use super::client::Client;
use super::cluster::Cluster;
use super::counts::Counts;
use super::reader::SeenUrls;
use super::upstreams::Upstreams;
use super::{chaos, mounted, reader, settled};

const REPOSITORIES: usize = 20;
/// How long to wait before the next push. Two cores publish about two snapshots a second on each of
/// three replicas.
const PUSH_PERIOD: Duration = Duration::from_millis(300);
/// How long the replicas may take to publish all repositories for the first time.
const FIRST_SNAPSHOTS: Duration = Duration::from_mins(3);

/// Returns the number in an environment variable, if it is set to one.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A signal that makes all participants of a storm stop.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    pub(super) fn is_set(&self) -> bool {
        self.wait_up_to(Duration::ZERO)
    }

    /// Waits until the signal is set, at most for `limit`. Returns whether it is set.
    pub(super) fn wait_up_to(&self, limit: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(is_set, limit, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// Sets the stop signal when it is dropped in a panic.
struct StopsAllOnPanic<'a>(&'a StopSignal);

impl Drop for StopsAllOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set();
        }
    }
}

struct Storm {
    // Fields are dropped in this order: the replicas end before `site` removes their directories.
    cluster: Cluster,
    upstreams: Upstreams,
    seen: SeenUrls,
    counts: Counts,
    stop: StopSignal,
    seed: u64,
    site: Site,
}

impl Storm {
    fn start() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let bucket = s3_bucket()?;
        let site = Site::default();
        let seed = setting("CACHEWFS_TEST_SEED").unwrap_or(4);
        println!("seed {seed}");
        let upstreams = Upstreams::create(&site, REPOSITORIES, &mut Dice::new(seed));
        let logs = std::env::var_os("CACHEWFS_TEST_LOGS").map(PathBuf::from);
        let logs = logs.unwrap_or_else(|| site.path().join("replicas"));
        Some(Self {
            cluster: Cluster::start(&logs, &site.upstreams(), bucket)?,
            upstreams,
            seen: SeenUrls::default(),
            counts: Counts::default(),
            stop: StopSignal::default(),
            seed,
            site,
        })
    }

    /// Returns the random choices of one participant. They depend on the seed, and on no other
    /// participant.
    fn dice(&self, participant: u64) -> Dice {
        Dice::new(self.seed * 100 + participant)
    }

    fn client(&self, participant: u64) -> Client<'_> {
        Client {
            addresses: self.cluster.addresses(),
            counts: &self.counts,
            stop: &self.stop,
            dice: self.dice(participant),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.path().join(name)
    }

    /// Waits until all repositories are published and all replicas have mirrors of them.
    fn prepare(&self) {
        wait_up_to(
            FIRST_SNAPSHOTS,
            "all replicas serve all repositories",
            || {
                let mut is_published = true;
                for upstream in self.upstreams.all() {
                    for address in self.cluster.addresses() {
                        let limit = Duration::from_secs(30);
                        let target = upstream.url("snapshot.tar.zst");
                        let range = [("Range", "bytes=-1")];
                        let answer =
                            cachewfs_tests::http_request(address, ("GET", &target), &range, limit);
                        is_published &= answer.is_ok_and(|answer| answer.status == 206);
                    }
                }
                is_published
            },
        );
    }

    fn push(&self) {
        let mut dice = self.dice(1);
        while !self.stop.wait_up_to(PUSH_PERIOD) {
            let upstream = dice.pick(self.upstreams.all());
            self.counts.add(upstream.change(&mut dice));
        }
    }

    /// Downloads archives until the stop signal: current checkout archives, current mirror
    /// archives, and earlier snapshots, which must not have changed.
    fn read(&self, participant: u64) {
        let mut client = self.client(participant);
        let directory = self.path(&format!("reader-{participant}"));
        let seen = &self.seen;
        while !self.stop.is_set() {
            let upstream = client.dice.pick(self.upstreams.all());
            match client.dice.below(6) {
                0 => {
                    let archive = (upstream, "mirror.tar.zst");
                    if let Some(download) = reader::download_in_ranges(&mut client, seen, archive) {
                        reader::check_mirror(&directory, upstream, &download);
                        self.counts.add("mirrors compared");
                    }
                }
                1 | 2 => {
                    let urls = seen.urls();
                    if !urls.is_empty() {
                        let url = client.dice.pick(&urls).clone();
                        reader::download_whole(&mut client, seen, &url);
                    }
                }
                _ => {
                    let archive = (upstream, "snapshot.tar.zst");
                    let download = reader::download_in_ranges(&mut client, seen, archive);
                    if let Some(download) = download.filter(|_| client.dice.below(3) == 0) {
                        reader::check_clone(&directory, upstream, &download);
                        self.counts.add("clones compared");
                    }
                }
            }
        }
    }

    /// Restores clones without a mount, by one download and tar, until the stop signal.
    fn restore(&self, participant: u64) {
        let mut client = self.client(participant);
        let directory = self.path(&format!("restored-{participant}"));
        while !self.stop.is_set() {
            let upstream = client.dice.pick(self.upstreams.all());
            let url = upstream.url("snapshot.tar.zst");
            let download = reader::download_whole(&mut client, &self.seen, &url).unwrap();
            upstream.assert_was_head(&download.commit);
            reader::check_clone(&directory, upstream, &download);
            self.counts.add("restores");
        }
    }

    fn check_mounts(&self, participant: u64) {
        let directory = self.path("workstation");
        let with = (&self.upstreams, &mut self.dice(participant));
        let urls = self.cluster.urls();
        mounted::check_mounts(&directory, &urls, with, (&self.counts, &self.stop));
    }

    fn inject_faults(&self) {
        let with = (&self.counts, &self.stop);
        chaos::inject_faults(&self.cluster, &mut self.dice(2), with);
    }

    fn run(&self, lasts: Duration) {
        thread::scope(|scope| {
            scope.spawn(|| self.take_part(|| self.push()));
            scope.spawn(|| self.take_part(|| self.inject_faults()));
            scope.spawn(|| self.take_part(|| self.restore(3)));
            scope.spawn(|| self.take_part(|| self.check_mounts(4)));
            scope.spawn(|| self.take_part(|| self.read(5)));
            scope.spawn(|| self.take_part(|| self.read(6)));
            self.stop.wait_up_to(lasts);
            self.stop.set();
        });
    }

    /// Runs a participant. If it panics, all others stop, too.
    fn take_part(&self, part: impl FnOnce()) {
        let _stops = StopsAllOnPanic(&self.stop);
        part();
    }

    fn settle(&self, directory: &Path) {
        let began = Instant::now();
        settled::wait_until_settled(&self.cluster, &self.upstreams);
        println!(
            "all replicas served the same state {:?} later",
            began.elapsed()
        );
        // The storm's own signal is set already, and would cut the client's waiting short.
        let not_set = StopSignal::default();
        let mut client = Client {
            stop: &not_set,
            ..self.client(9)
        };
        settled::check_served(&mut client, &self.seen, (&self.upstreams, directory));
        let urls = self.seen.urls();
        for url in &urls {
            reader::download_whole(&mut client, &self.seen, url);
        }
        let stored = settled::wait_until_collected(&self.cluster, &self.upstreams);
        println!(
            "{} immutable URLs never changed; {} times one had expired; \
             {} manifests reference all {} segments",
            urls.len(),
            self.counts.of(reader::EXPIRED),
            stored.manifests,
            stored.segments.len()
        );
    }
}

#[test]
fn nobody_sees_a_wrong_byte_while_replicas_fail() {
    let Some(storm) = Storm::start() else { return };
    let lasts = setting("CACHEWFS_TEST_STORM_SECONDS").unwrap_or(25);
    let began = Instant::now();
    storm.prepare();
    println!("prepared after {:?}", began.elapsed());

    storm.run(Duration::from_secs(lasts));
    println!(
        "the storm ended after {:?}\n{}",
        began.elapsed(),
        storm.counts
    );
    storm.settle(&storm.path("settled"));

    println!("all checks passed after {:?}", began.elapsed());
    assert!(storm.counts.of("kills") > 1);
}
