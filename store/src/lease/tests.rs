//! Daemons take, hold and lose a lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::RepoName;
use tempfile::TempDir;

use super::record::LeaseRecord;
use super::{Claim, Holder, Lease, Leases};
use crate::key::Key;
use crate::lease::{LeaseEvent, LeaseMetrics};
use crate::objects::Written;
use crate::testing::{now, shelf};
use crate::wrapped::refusal;
use crate::wrapped::{Call, Wrapped};
use crate::{BucketTier, DiskTier, Store};

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);
/// The time to live of leases that are to expire.
const SHORT: Duration = Duration::from_millis(300);

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let tier = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
    (directory, Store::new(tier))
}

fn repo() -> RepoName {
    RepoName::parse("example.com/a").unwrap()
}

fn key() -> Key {
    Key::lease(&shelf())
}

struct Daemon {
    leases: Leases,
    metrics: Arc<LeaseMetrics>,
}

impl Daemon {
    fn named(id: &str) -> Self {
        let metrics = Arc::<LeaseMetrics>::default();
        let me = Holder::named(id, "host");
        let leases = Leases::new(me, Arc::clone(&metrics));
        Self { leases, metrics }
    }

    fn claim(&self, store: &Store, ttl: Duration) -> Claim {
        now(self.leases.claim(store, &repo(), (ttl, 0)))
    }

    fn take(&self, store: &Store, ttl: Duration) -> Lease {
        match self.claim(store, ttl) {
            Claim::Lease(lease) => lease,
            claim => panic!("{claim:?}"),
        }
    }

    fn holder(&self, store: &Store) -> Option<Arc<str>> {
        now(self.leases.holder(store, &repo()))
    }

    fn count(&self, event: LeaseEvent) -> u64 {
        self.metrics.count(event)
    }
}

fn stored(store: &Store) -> LeaseRecord {
    let found = now(store.nearest().read_whole(&key())).unwrap().unwrap();
    LeaseRecord::parse(&found.bytes).unwrap()
}

fn write(store: &Store, bytes: &[u8]) {
    let present = now(store.nearest().read_whole(&key())).unwrap();
    let version = present.map(|present| present.version);
    let written = now(store.nearest().swap(&key(), version.as_ref(), bytes));
    assert_eq!(written.unwrap(), Written::New);
}

/// Waits until `is_so` returns `true`.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "it didn't become true in time");
        std::thread::yield_now();
    }
}

#[test]
fn concurrent_claims_give_one_daemon_the_lease() {
    let (_directory, store) = store();
    let daemons: Vec<_> = (0..8).map(|n| Daemon::named(&format!("d{n}"))).collect();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let claims: Vec<_> = std::thread::scope(|scope| {
            let claim = |daemon: &Daemon| daemon.claim(&store, LONG);
            let threads: Vec<_> = daemons
                .iter()
                .map(|daemon| scope.spawn(move || claim(daemon)))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut leases: Vec<_> = claims
            .into_iter()
            .filter_map(|claim| match claim {
                Claim::Lease(lease) => Some(lease),
                Claim::HeldBy(_) => None,
                Claim::None => panic!("a publish goes on without a lease"),
            })
            .collect();
        let lease = leases.pop().unwrap();
        assert_eq!(leases.len(), 0, "several daemons hold it");
        assert!(!lease.is_lost());
        tokens.push(lease.token());
    }

    assert_eq!(tokens, [1, 2, 3]);
    assert!(stored(&store).is_released);
    assert_eq!(daemons[0].holder(&store), None);
}

#[test]
fn a_claim_of_a_held_lease_returns_its_holder() {
    let (_directory, store) = store();
    let (one, other) = (Daemon::named("0123456789"), Daemon::named("b"));
    let lease = one.take(&store, LONG);

    let Claim::HeldBy(holder) = other.claim(&store, LONG) else {
        panic!("both daemons hold it");
    };

    assert_eq!(&*holder, "host (01234567)");
    assert_eq!(other.holder(&store), Some(holder));
    drop(lease);
    assert_eq!(other.take(&store, LONG).token(), 2);
    assert_eq!(other.count(LeaseEvent::TakenOver), 0);
}

#[test]
fn the_lease_of_a_dead_daemon_expires_and_is_taken_over() {
    let (_directory, store) = store();
    let (dead, heir) = (Daemon::named("a"), Daemon::named("b"));
    dead.take(&store, SHORT).abandon();
    assert!(heir.holder(&store).is_some());
    let first_seen = Instant::now();

    wait_until(|| heir.holder(&store).is_none());

    assert!(first_seen.elapsed() >= SHORT / 2);
    assert_eq!(heir.take(&store, LONG).token(), 2);
    assert_eq!(heir.count(LeaseEvent::TakenOver), 1);
    // A daemon that hasn't seen this lease before waits for the whole time.
    let (_directory, store) = self::store();
    dead.take(&store, SHORT).abandon();
    assert!(matches!(heir.claim(&store, LONG), Claim::HeldBy(_)));
}

#[test]
fn a_renewed_lease_stays_with_its_holder() {
    let (_directory, store) = store();
    let (one, other) = (Daemon::named("a"), Daemon::named("b"));
    let ttl = Duration::from_millis(1500);
    let lease = one.take(&store, ttl);
    let began = Instant::now();

    wait_until(|| {
        assert!(other.holder(&store).is_some());
        began.elapsed() > ttl * 2
    });

    assert!(!lease.is_lost());
    assert_eq!(stored(&store).token, 1);
}

#[test]
fn a_lost_lease_is_noticed_and_not_released() {
    let (_directory, store) = store();
    let daemon = Daemon::named("a");
    let lease = daemon.take(&store, SHORT);
    let others = LeaseRecord::new(Holder::named("b", "host"), 2, LONG);
    write(&store, &others.to_json().unwrap());

    wait_until(|| lease.is_lost());
    drop(lease);

    assert_eq!(stored(&store), others);
    assert_eq!(daemon.count(LeaseEvent::Lost), 1);
}

#[test]
fn a_restarted_daemon_takes_its_own_lease_at_once() {
    let (_directory, store) = store();
    Daemon::named("a").take(&store, LONG).abandon();

    let lease = Daemon::named("a").take(&store, LONG);

    assert_eq!(lease.token(), 2);
}

#[test]
fn a_token_is_higher_than_the_fence() {
    let (_directory, store) = store();
    let daemon = Daemon::named("a");

    let claim = now(daemon.leases.claim(&store, &repo(), (LONG, 41)));

    assert!(matches!(claim, Claim::Lease(lease) if lease.token() == 42));
}

#[test]
fn an_unusable_lease_does_not_stop_a_publish() {
    let (_directory, store) = store();
    let daemon = Daemon::named("a");
    for strange in ["", "garbage", "{\"version\":2}", "{\"version\":1}"] {
        write(&store, strange.as_bytes());

        assert!(matches!(daemon.claim(&store, LONG), Claim::None));

        assert_eq!(daemon.holder(&store), None);
        let left = now(store.nearest().read_whole(&key())).unwrap().unwrap();
        assert_eq!(left.bytes, strange.as_bytes());
    }
    assert_eq!(daemon.count(LeaseEvent::Failed), 4);
    assert!(matches!(daemon.claim(&store, Duration::ZERO), Claim::None));
    assert_eq!(daemon.count(LeaseEvent::Failed), 4);
}

#[test]
fn a_store_that_refuses_leases_does_not_stop_a_publish() {
    for refused in [Call::Swap, Call::ReadWhole] {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
        let refuse = move |call| (call != refused).then_some(()).ok_or_else(refusal);
        let store = Store::new(BucketTier::new(Arc::new(Wrapped::new(
            Arc::new(disk),
            refuse,
        ))));
        let daemon = Daemon::named("a");

        assert!(matches!(daemon.claim(&store, LONG), Claim::None));

        assert_eq!(daemon.count(LeaseEvent::Failed), 1);
    }
}

mod interleaved {
    //! The steps of daemons in any order, with clocks of equal speed that show different times.

    use proptest::prelude::*;

    use super::*;
    use crate::lease::judge::{ClaimedLease, SeenLease, Verdict, judge};
    use crate::objects::Version;

    const TTL: Duration = Duration::from_secs(30);

    /// An object with compare-and-swap. Its version is its bytes, as on disk.
    #[derive(Default)]
    struct Object(Option<LeaseRecord>);

    impl Object {
        fn version(record: &LeaseRecord) -> Version {
            Version::new(String::from_utf8(record.to_json().unwrap()).unwrap())
        }

        fn swap(&mut self, expected: Option<&Version>, new: LeaseRecord) -> bool {
            let present = self.0.as_ref().map(Self::version);
            let is_expected = present.as_ref() == expected;
            if is_expected {
                self.0 = Some(new);
            }
            is_expected
        }
    }

    /// The lease that a read found.
    struct Read(Option<LeaseRecord>);

    /// A write that has been sent and hasn't arrived.
    struct Sent {
        expected: Option<Version>,
        record: LeaseRecord,
        began: Instant,
    }

    struct Simulated {
        me: Holder,
        offset: Duration,
        seen: Option<SeenLease>,
        /// The outcome of a read that hasn't been judged yet.
        read: Option<Read>,
        sent: Option<Sent>,
        held: Option<ClaimedLease>,
    }

    impl Simulated {
        fn new(index: usize, incarnation: usize) -> Self {
            Self {
                me: Holder::named(&format!("d{index}-{incarnation}"), "host"),
                offset: Duration::from_secs(1000 * index as u64),
                seen: None,
                read: None,
                sent: None,
                held: None,
            }
        }

        fn believes(&self, now: Instant) -> bool {
            let held = self.held.as_ref();
            held.is_some_and(|held| !held.may_be_lost(now + self.offset))
        }

        /// Judges the lease that was read, and sends the write that follows.
        fn judge(&mut self, now: Instant) {
            let Some(Read(read)) = self.read.take() else {
                return;
            };
            let version = read.as_ref().map(Object::version);
            let record = if let Some(held) = &self.held {
                let Some(present) = read.filter(|it| held.record.is_of_same_claim(it)) else {
                    self.held = None;
                    return;
                };
                present.renewed()
            } else {
                let found = read.as_ref().zip(version.as_ref());
                match judge(found, &mut self.seen, (&self.me, now)) {
                    Verdict::HeldBy(_) => return,
                    Verdict::Free { last_token, .. } => {
                        LeaseRecord::new(self.me.clone(), last_token + 1, TTL)
                    }
                }
            };
            self.sent = Some(Sent {
                expected: version,
                record,
                began: now,
            });
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Read,
        Judge,
        Arrive,
        Release,
        /// The daemon dies, and another one (`true`) or the same one starts in its place.
        Crash(bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Read),
            6 => Just(Step::Judge),
            6 => Just(Step::Arrive),
            1 => Just(Step::Release),
            1 => any::<bool>().prop_map(Step::Crash),
            5 => (0_u64..20).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_two_daemons_believe_that_they_hold_the_lease(
            steps in prop::collection::vec((0_usize..3, step()), 1..120)
        ) {
            let mut now = Instant::now();
            let mut object = Object::default();
            let mut daemons: Vec<_> = (0..3).map(|index| Simulated::new(index, 0)).collect();
            let mut last_token = 0;
            for (count, (index, step)) in steps.into_iter().enumerate() {
                let daemon = &mut daemons[index];
                let local = now + daemon.offset;
                match step {
                    Step::Read => daemon.read = Some(Read(object.0.clone())),
                    Step::Judge => daemon.judge(local),
                    Step::Arrive => if let Some(sent) = daemon.sent.take() {
                        let Sent { expected, record, began } = sent;
                        let is_claim = daemon.held.is_none();
                        if object.swap(expected.as_ref(), record.clone()) {
                            if is_claim {
                                prop_assert!(record.token > last_token);
                                last_token = record.token;
                            }
                            daemon.held = Some(ClaimedLease::written(record, began));
                        } else {
                            daemon.held = None;
                        }
                    },
                    Step::Release => if let Some(held) = daemon.held.take() {
                        daemon.sent = None;
                        if object.0.as_ref().is_some_and(|it| held.record.is_of_same_claim(it)) {
                            let expected = object.0.as_ref().map(Object::version);
                            object.swap(expected.as_ref(), held.record.released());
                        }
                    },
                    Step::Crash(is_another) => {
                        let me = daemon.me.clone();
                        *daemon = Simulated::new(index, count + 1);
                        if !is_another {
                            daemon.me = me;
                        }
                    }
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                let believers = daemons.iter().filter(|daemon| daemon.believes(now)).count();
                prop_assert!(believers <= 1, "{believers} believe that they hold it");
            }
        }
    }
}
