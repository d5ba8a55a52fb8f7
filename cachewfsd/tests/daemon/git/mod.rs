//! Git clients against the daemon.

mod limits;
mod pass_on;
mod serve;
mod share;
