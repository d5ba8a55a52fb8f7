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
fn collections_delete_all_unnamed_segments_and_no_named_one() {
    for seed in 0..runs() {
        let outcome = run(seed, Habits::default());
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

/// Returns whether some run shows that actors with these habits break an invariant.
fn is_discovered(habits: Habits) -> bool {
    let found = (0..5000).find(|&seed| run(seed, habits).is_err());
    println!("{habits:?}: {found:?}");
    found.is_some()
}

#[test]
fn the_model_finds_a_publisher_that_protects_too_early() {
    assert!(is_discovered(Habits {
        looks_before_it_builds: true,
        ..Habits::default()
    }));
}

#[test]
fn the_model_finds_a_collector_with_a_short_notice_period() {
    assert!(is_discovered(Habits {
        hardly_waits: true,
        ..Habits::default()
    }));
}
