//! Memory over disk over a bucket: the bucket has everything, the others what was wanted lately.
//!
//! ```text
//! tier ──► disk tier (whole segments, manifests, the last pointers) ──► space (limit, least recently used)
//!   └────► fetch (parts of segments from the bucket, each once) ──► memory (parts), fill (a file on disk)
//! ```
//!
//! A segment is fetched in parts, those first that somebody waits for; the rest follows, into a temporary
//! file that takes its place on disk once it is whole. What goes wrong with memory or disk costs a request
//! to the bucket, never an answer.

mod buffers;
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

pub(crate) use tier::{Limits, Tiers};

#[cfg(test)]
mod tests;
