//! Runs publishes and collections at the same time in random orders: the real code of both, in a
//! world whose store, clocks and accidents are a model.
//!
//! - Actors are threads, of which one runs at a time.
//! - Each call of the store has two moments: it is sent, and it is carried out, at most the write
//!   limit later. Its answer arrives after any time.
//! - The clocks of actors run up to 10% too fast or too slow.
//! - An actor may die at any call, and the call may still be carried out.
//! - After each change of the store, all invariants are checked.

mod actors;
mod tier;
mod world;

use std::sync::Arc;

use actors::{Habits, collector, publisher, settle};
use world::World;

/// The number of runs, which differ only in their seed. `CACHEWFS_MODEL_RUNS` sets another number.
const RUNS: u64 = 150;

fn runs() -> u64 {
    let runs = std::env::var("CACHEWFS_MODEL_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(RUNS)
}

/// Runs three publishers and two collectors. Returns the invariant that was broken.
fn run(seed: u64, habits: Habits) -> Result<(), String> {
    let world = Arc::new(World::new(seed));
    std::thread::scope(|scope| {
        for actor in 0..5 {
            let world = Arc::clone(&world);
            scope.spawn(move || {
                let actor = world.enter(actor);
                if actor.number() < 3 {
                    publisher(&actor, habits);
                } else {
                    collector(&actor, habits);
                }
            });
        }
        world.start();
    });
    world.broken().map_or(Ok(()), Err)?;
    settle(&world)
}

#[test]
fn nothing_that_a_manifest_names_is_deleted_and_nothing_else_stays() {
    for seed in 0..runs() {
        let outcome = run(seed, Habits::default());
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// Returns whether some run shows that actors with these habits break an invariant.
fn is_found_out(habits: Habits) -> bool {
    let found = (0..5000).find(|&seed| run(seed, habits).is_err());
    println!("{habits:?}: {found:?}");
    found.is_some()
}

#[test]
fn a_publisher_that_does_not_look_again_is_found_out() {
    assert!(is_found_out(Habits {
        looks_before_it_builds: true,
        ..Habits::default()
    }));
}

#[test]
fn a_collector_that_hardly_waits_is_found_out() {
    assert!(is_found_out(Habits {
        hardly_waits: true,
        ..Habits::default()
    }));
}
