//! [`Tiers`]: memory, disk and bucket combined into one tier. The bucket has everything; memory and
//! disk cache the objects that were read or written last.
//!
//! ```text
//! tier ──┬─► pointers, manifests, repositories    remembered answers of the bucket
//!        ├─► overdue                              serves a copy when the bucket takes too long
//!        ├─► copies ──► disk tier                 local copies: segments, manifests, pointers
//!        │                └─► space               their limit; evicts the least recently used
//!        └─► fetch ──┬─► memory                   parts of segments
//!                    └─► fill                     a segment that is being fetched into a file
//! ```
//!
//! A segment is fetched in parts, the ones that a reader waits for first. The rest follows in the
//! background, into a staging file that becomes the local copy once it is complete.
//!
//! A failure of memory or disk costs a request to the bucket, but no request of a reader fails.

mod copies;
mod fetch;
mod fill;
mod manifests;
mod memory;
mod overdue;
mod pointers;
mod repositories;
mod space;
mod tier;

pub use tier::{TierLimits, Tiers};

#[cfg(test)]
mod tests;
