//! Leases: which of the daemons that share a store publishes a repository.
//!
//! A lease only saves work. Publishing is safe without it, because the pointer moves by
//! compare-and-swap.
//!
//! ```text
//! record     the lease object: holder, token, renewals
//! judge      whether a lease has expired; no I/O, works with any clock
//! claims     takes leases, and tells who holds one
//! held       a lease that this daemon holds: renewed while it publishes, released at the end
//! holder     the identity of this daemon
//! metrics    counts of events
//! ```
//!
//! No two clocks are compared. Each renewal changes the object. A daemon that has seen the same
//! bytes for the time to live, by its own clock, may take the lease over. The holder counts its
//! time to live from before it sent the bytes, so it stops believing in its lease first
//! if their clocks run at the same speed.

mod claims;
mod error;
mod held;
mod holder;
mod judge;
mod metrics;
mod record;
#[cfg(test)]
mod tests;

pub use claims::{Claim, Leases};
pub use held::Lease;
pub use holder::Holder;
pub use metrics::{LeaseEvent, LeaseMetrics};
pub(crate) use record::MAX_TTL;
