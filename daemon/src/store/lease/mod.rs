//! Which of the daemons that have one store publishes a repository: so that none does what another is
//! doing already. What is published is safe without (`snapshots`: the pointer moves by compare-and-swap).
//!
//! ```text
//! record     the object: who holds the lease, with which token, how often renewed
//! judge      whether it may be taken, and whether it is still held: no I/O, any clock
//! claims     taking it, and looking who has it
//! held       holding it: renewed while the work runs, released in the end
//! holder     who this daemon is
//! ```
//!
//! No two clocks are compared. A lease has expired for whoever has seen the same bytes for as long as its
//! holder said, on their own clock; and a holder counts from before the bytes were written.

mod claims;
mod error;
mod held;
mod holder;
mod judge;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use claims::{Claim, Leases};
pub(crate) use held::Lease;
pub(crate) use holder::Holder;
pub(crate) use record::MAX_TTL;
