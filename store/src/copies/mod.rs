//! [`Copies`]: local copies of a bucket, in memory and on disk, of the objects that were read or
//! written last. This module alone knows how near an object is.
//!
//! ```text
//! objects ──┬─► pointers, manifests, repositories    remembered answers of the bucket
//!           ├─► overdue                              serves a copy when the bucket takes too long
//!           ├─► keep ──► disk tier                   local copies: segments, manifests, pointers
//!           │              └─► space                 their limit; evicts the least recently used
//! near ─────┴─► fetch ──┬─► memory                   parts of segments
//!                       └─► fill                     a segment that is being fetched into a file
//! ```
//!
//! A segment is fetched in parts, the ones that a reader waits for first. The rest follows in the
//! background, into a staging file that becomes the local copy once it is complete.
//!
//! A failure of memory or disk costs a request to the bucket, but no request of a reader fails.

mod fetch;
mod fill;
mod keep;
mod manifests;
mod memory;
mod near;
mod objects;
mod overdue;
mod pointers;
mod repositories;
mod space;

pub use near::{Copies, CopyLimits};

#[cfg(test)]
mod tests;
