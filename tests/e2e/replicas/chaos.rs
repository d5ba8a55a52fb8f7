//! What happens to replicas: at most two are unwell at a time.

use std::time::{Duration, Instant};

use cachewfs_tests::Dice;

use super::cluster::{Cluster, REPLICAS, Resource};
use super::counts::Counts;
use super::storm::StopSignal;

/// How many are unwell at a time.
const MAX_FAULTY: usize = 2;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(300);

/// What is wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplicaFault {
    Down,
    Without(Resource),
}

const FAULTS: [ReplicaFault; 5] = [
    ReplicaFault::Down,
    ReplicaFault::Down,
    ReplicaFault::Without(Resource::S3),
    ReplicaFault::Without(Resource::Upstream),
    ReplicaFault::Without(Resource::DiskSpace),
];

#[derive(Debug)]
struct FaultyReplica {
    replica: usize,
    fault: ReplicaFault,
    until: Instant,
}

/// Goes on until the end, after which all are well.
pub(super) fn inject_faults(
    cluster: &Cluster,
    dice: &mut Dice,
    (counts, stop): (&Counts, &StopSignal),
) {
    let mut faulty: Vec<FaultyReplica> = Vec::new();
    // Each kind comes as often as the others, also in a short storm.
    let mut next = Vec::new();
    while !stop.wait_up_to(TICK) {
        let now = Instant::now();
        for over in faulty.extract_if(.., |one| one.until <= now) {
            repair(cluster, &over, dice, counts);
        }
        if faulty.len() == MAX_FAULTY || dice.below(3) == 0 {
            continue;
        }
        let well: Vec<_> = (0..REPLICAS)
            .filter(|replica| faulty.iter().all(|one| one.replica != *replica))
            .collect();
        if next.is_empty() {
            next = FAULTS.to_vec();
            dice.shuffle(&mut next);
        }
        let (replica, fault) = (*dice.pick(&well), next.pop().unwrap());
        inject(cluster, (replica, fault), dice, counts);
        let lasts = match fault {
            ReplicaFault::Down => Duration::from_millis(200 + dice.below(1500) as u64),
            ReplicaFault::Without(_) => Duration::from_millis(2000 + dice.below(4000) as u64),
        };
        faulty.push(FaultyReplica {
            replica,
            fault,
            until: Instant::now() + lasts,
        });
    }
    for over in faulty {
        repair(cluster, &over, dice, counts);
    }
}

fn inject(
    cluster: &Cluster,
    (replica, fault): (usize, ReplicaFault),
    dice: &mut Dice,
    counts: &Counts,
) {
    match fault {
        ReplicaFault::Down => {
            kill(cluster, replica, counts);
            if dice.below(3) == 0 {
                counts.add("disks emptied");
                cluster.empty(replica);
            }
        }
        ReplicaFault::Without(resource) => {
            counts.add(format!("times without {resource:?}"));
            cluster.take_away(replica, resource);
        }
    }
}

fn repair(cluster: &Cluster, over: &FaultyReplica, dice: &mut Dice, counts: &Counts) {
    match over.fault {
        ReplicaFault::Down => cluster.restart(over.replica),
        // Sometimes it doesn't live to see it.
        ReplicaFault::Without(resource) if dice.below(4) == 0 => {
            kill(cluster, over.replica, counts);
            cluster.give_back(over.replica, resource);
            cluster.restart(over.replica);
        }
        ReplicaFault::Without(resource) => cluster.give_back(over.replica, resource),
    }
}

fn kill(cluster: &Cluster, replica: usize, counts: &Counts) {
    counts.add("kills");
    cluster.kill(replica);
}
