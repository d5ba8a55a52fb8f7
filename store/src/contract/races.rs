//! The contract for concurrent calls: one writer wins, and no reader sees half an object.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use super::retrying::Retrying;
use super::{bytes, repo, snapshot, version};
use crate::{Key, Written};

/// The number of rounds. A server may take a second to answer all losers.
const ROUNDS: u8 = 3;
/// The number of writers in each round.
const RACERS: usize = 12;

pub(super) fn check(tier: &Retrying<'_>) {
    one_concurrent_create_wins(tier);
    one_concurrent_swap_wins(tier);
    a_concurrent_reader_sees_one_whole_write(tier);
}

/// Starts all writers at the same time. Returns the winners.
fn race(write: impl Fn(usize) -> Written + Sync) -> Vec<usize> {
    let barrier = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let (write, barrier) = (&write, &barrier);
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                scope.spawn(move || {
                    barrier.wait();
                    (write(racer) == Written::New).then_some(racer)
                })
            })
            .collect();
        let outcomes = racers.into_iter().map(|racer| racer.join().unwrap());
        outcomes.flatten().collect()
    })
}

fn one_concurrent_create_wins(tier: &Retrying<'_>) {
    for round in 0..ROUNDS {
        let key = Key::manifest(&repo("create/race"), snapshot(round));

        let winners = race(|racer| tier.create(&key, racer.to_string().as_bytes()).unwrap());

        let [winner] = winners[..] else {
            panic!("{winners:?} won");
        };
        assert_eq!(bytes(tier, &key), winner.to_string().as_bytes());
    }
}

fn one_concurrent_swap_wins(tier: &Retrying<'_>) {
    let key = Key::pointer(&repo("swap/race"));
    let mut expected = None;
    for _ in 0..ROUNDS {
        let swap = |racer: usize| {
            let bytes = racer.to_string();
            tier.swap(&key, expected.as_ref(), bytes.as_bytes())
                .unwrap()
        };
        let winners = race(swap);

        let [winner] = winners[..] else {
            panic!("{winners:?} won");
        };
        assert_eq!(bytes(tier, &key), winner.to_string().as_bytes());
        expected = Some(version(tier, &key));
        // So that the winner of the next round can't store the same bytes again.
        let other = tier.swap(&key, expected.as_ref(), b"between rounds");
        assert_eq!(other.unwrap(), Written::New);
        expected = Some(version(tier, &key));
    }
}

fn a_concurrent_reader_sees_one_whole_write(tier: &Retrying<'_>) {
    let key = Key::lease(&repo("swap/read"));
    let content = |round: u8| vec![round; 100_000];
    tier.swap(&key, None, &content(0)).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..20 {
                let version = version(tier, &key);
                let written = tier.swap(&key, Some(&version), &content(round));
                assert_eq!(written.unwrap(), Written::New);
            }
            is_done.store(true, Ordering::SeqCst);
        });
        let mut last = 0;
        while !is_done.load(Ordering::SeqCst) {
            let read = tier.read_whole(&key).unwrap().unwrap().bytes;
            assert!(read == content(read[0]), "{} bytes", read.len());
            assert!(last <= read[0], "{} after {last}", read[0]);
            last = read[0];
        }
    });
}
