//! Several daemons that share nothing but a bucket.
//!
//! | file | is |
//! | --- | --- |
//! | `racing_publishes` | a test: two daemons publish the same commit at once, again and again |
//! | `storm` | a test: three daemons, each with network, disk and life of its own, all of which fail |
//! | `cluster` | these three, and what they need |
//! | `upstreams` | what they mirror, which changes all the time; it is also the oracle |
//! | `chaos` | what is done to them |
//! | `client`, `reader`, `mounted` | who uses them meanwhile, and what must never happen to them |
//! | `settled` | what has to be so when all is over |
//! | `counts` | what happened |
//!
//! The long form, of 15 minutes, with the logs of the daemons in a directory that stays:
//!
//! ```text
//! cargo build --bins
//! CACHEWFS_TEST_STORM_SECONDS=900 CACHEWFS_TEST_LOGS=/tmp/storm \
//!     cargo test -p cachewfs-tests --test e2e replicas::storm -- --nocapture
//! ```
//!
//! `CACHEWFS_TEST_SEED` repeats the choices of a run, though not its timing.

#![expect(clippy::print_stdout, reason = "what happened is a part of the result")]

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
