//! The store's objects in a bucket of S3, or of a service with the same protocol that honours
//! conditional writes.
//!
//! ```text
//! open ─► tier ──► bucket (one request, with retries) ──► client (service and credentials)
//!           ├────► upload (large objects, in parts)         probe (honours preconditions?)
//!           └────► direct (URLs for clients; no requests)   walk (which repositories exist)
//! ```
//!
//! Of these layers `bucket` alone retries. The SDK's own retries are turned off. The section of the
//! configuration is in the crate `store`: [`cachewfs_store::S3Config`].

mod bucket;
mod client;
mod direct;
mod error;
mod files;
mod health;
mod open;
mod probe;
mod tier;
mod upload;
mod walk;

use bucket::Bucket;
use cachewfs_store::S3Config;
use error::S3Error;
pub use open::S3;
use tier::S3Tier;

// The contract of tiers and its helpers belong to the crate `store`. They are included here, and
// not exported there, so that no build of the store has a feature for tests.
#[cfg(test)]
use cachewfs_store::*;
#[cfg(test)]
#[path = "../../store/src/contract/mod.rs"]
mod contract;
#[cfg(test)]
#[path = "../../store/src/testing.rs"]
#[expect(dead_code, reason = "only tests of the store use some of it")]
mod testing;
#[cfg(test)]
#[path = "../../store/src/wrapped.rs"]
#[expect(dead_code, reason = "only tests of the store use some of it")]
mod wrapped;

#[cfg(test)]
mod contract_runs;
#[cfg(test)]
mod services;
#[cfg(test)]
mod tests;
