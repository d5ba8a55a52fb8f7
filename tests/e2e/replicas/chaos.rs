//! Injects faults into replicas: at most two of the three are faulty at a time.

use std::time::{Duration, Instant};

use cachewfs_tests::Dice;

use super::cluster::{Cluster, REPLICAS, Resource};
use super::counts::Counts;
use super::storm::StopSignal;

/// At most this many replicas are faulty at a time, so one can always answer.
const MAX_FAULTY: usize = 2;
/// How long to wait before faults are injected or repaired again.
const TICK: Duration = Duration::from_millis(300);

/// A fault of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplicaFault {
    /// Its process was killed.
    Down,
    /// It can't use a resource.
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

/// Injects and repairs faults until the stop signal. Then repairs all that are left.
pub(super) fn inject_faults(
    cluster: &Cluster,
    dice: &mut Dice,
    (counts, stop): (&Counts, &StopSignal),
) {
    let mut faulty: Vec<FaultyReplica> = Vec::new();
    // Faults are dealt like cards, not drawn at random: so a short storm has all kinds, too.
    let mut next = Vec::new();
    while !stop.wait_up_to(TICK) {
        let now = Instant::now();
        for ended in faulty.extract_if(.., |one| one.until <= now) {
            repair(cluster, &ended, dice, counts);
        }
        if faulty.len() == MAX_FAULTY || dice.below(3) == 0 {
            continue;
        }
        let healthy: Vec<_> = (0..REPLICAS)
            .filter(|replica| faulty.iter().all(|one| one.replica != *replica))
            .collect();
        if next.is_empty() {
            next = FAULTS.to_vec();
            dice.shuffle(&mut next);
        }
        let (replica, fault) = (*dice.pick(&healthy), next.pop().unwrap());
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
    for left in faulty {
        repair(cluster, &left, dice, counts);
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

fn repair(cluster: &Cluster, faulty: &FaultyReplica, dice: &mut Dice, counts: &Counts) {
    match faulty.fault {
        ReplicaFault::Down => cluster.restart(faulty.replica),
        // Sometimes the replica is killed before it gets the resource back.
        ReplicaFault::Without(resource) if dice.below(4) == 0 => {
            kill(cluster, faulty.replica, counts);
            cluster.give_back(faulty.replica, resource);
            cluster.restart(faulty.replica);
        }
        ReplicaFault::Without(resource) => cluster.give_back(faulty.replica, resource),
    }
}

fn kill(cluster: &Cluster, replica: usize, counts: &Counts) {
    counts.add("kills");
    cluster.kill(replica);
}
