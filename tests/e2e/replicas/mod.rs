//! Several daemons (replicas) that share only a bucket.
//!
//! | file | has |
//! | --- | --- |
//! | `racing_publishes` | tests: two daemons publish the same commits, at once or in turn |
//! | `storm` | a test: three replicas whose processes, networks and disks fail, under load |
//! | `cluster` | the three replicas, with their network, disks, upstream server and bucket |
//! | `upstreams` | the repositories, which change all the time; the oracle of the checks |
//! | `chaos` | injects the faults |
//! | `client`, `reader`, `mounted` | use the replicas during the storm, and check each answer |
//! | `settled` | the checks after the storm |
//! | `counts` | counts the events of a storm |
//!
//! A long storm, of 15 minutes, whose logs stay in a directory:
//!
//! ```text
//! cargo build --bins
//! CACHEWFS_TEST_STORM_SECONDS=900 CACHEWFS_TEST_LOGS=/tmp/storm \
//!     cargo test -p cachewfs-tests --test e2e replicas::storm -- --nocapture
//! ```
//!
//! `CACHEWFS_TEST_SEED` repeats the choices of a run, though not its timing.

#![expect(
    clippy::print_stdout,
    reason = "the counts of a storm are a part of its result"
)]

mod chaos;
mod client;
mod cluster;
mod counts;
mod mounted;
mod racing_publishes;
mod reader;
mod settled;
mod storm;
mod upstreams;
