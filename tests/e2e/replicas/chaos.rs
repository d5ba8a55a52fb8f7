//! What happens to replicas: at most two are unwell at a time.

use std::time::{Duration, Instant};

use cachewfs_tests::Dice;

use super::cluster::{Cluster, Lack, REPLICAS};
use super::counts::Counts;
use super::storm::End;

/// How many are unwell at a time.
const MOST: usize = 2;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(300);

/// What is wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Down,
    Lacks(Lack),
}

const FAULTS: [Fault; 5] = [
    Fault::Down,
    Fault::Down,
    Fault::Lacks(Lack::S3),
    Fault::Lacks(Lack::Upstream),
    Fault::Lacks(Lack::Room),
];

#[derive(Debug)]
struct Unwell {
    replica: usize,
    fault: Fault,
    until: Instant,
}

/// Goes on until the end, after which all are well.
pub(super) fn rage(cluster: &Cluster, dice: &mut Dice, (counts, end): (&Counts, &End)) {
    let mut unwell: Vec<Unwell> = Vec::new();
    // Each kind comes as often as the others, also in a short storm.
    let mut next = Vec::new();
    while !end.within(TICK) {
        let now = Instant::now();
        for over in unwell.extract_if(.., |one| one.until <= now) {
            heal(cluster, &over, dice, counts);
        }
        if unwell.len() == MOST || dice.below(3) == 0 {
            continue;
        }
        let well: Vec<_> = (0..REPLICAS)
            .filter(|replica| unwell.iter().all(|one| one.replica != *replica))
            .collect();
        if next.is_empty() {
            next = FAULTS.to_vec();
            dice.shuffle(&mut next);
        }
        let (replica, fault) = (*dice.pick(&well), next.pop().unwrap());
        harm(cluster, (replica, fault), dice, counts);
        let lasts = match fault {
            Fault::Down => Duration::from_millis(200 + dice.below(1500) as u64),
            Fault::Lacks(_) => Duration::from_millis(2000 + dice.below(4000) as u64),
        };
        unwell.push(Unwell {
            replica,
            fault,
            until: Instant::now() + lasts,
        });
    }
    for over in unwell {
        heal(cluster, &over, dice, counts);
    }
}

fn harm(cluster: &Cluster, (replica, fault): (usize, Fault), dice: &mut Dice, counts: &Counts) {
    match fault {
        Fault::Down => {
            kill(cluster, replica, counts);
            if dice.below(3) == 0 {
                counts.add("disks emptied");
                cluster.empty(replica);
            }
        }
        Fault::Lacks(lack) => {
            counts.add(format!("times without {lack:?}"));
            cluster.take_away(replica, lack);
        }
    }
}

fn heal(cluster: &Cluster, over: &Unwell, dice: &mut Dice, counts: &Counts) {
    match over.fault {
        Fault::Down => cluster.restart(over.replica),
        // Sometimes it doesn't live to see it.
        Fault::Lacks(lack) if dice.below(4) == 0 => {
            kill(cluster, over.replica, counts);
            cluster.give_back(over.replica, lack);
            cluster.restart(over.replica);
        }
        Fault::Lacks(lack) => cluster.give_back(over.replica, lack),
    }
}

fn kill(cluster: &Cluster, replica: usize, counts: &Counts) {
    counts.add("kills");
    cluster.kill(replica);
}
