//! Git clients against the daemon.

mod limits;
pub(crate) mod pass_on;
mod serve;
mod share;
