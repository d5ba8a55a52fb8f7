//! A tier in a bucket of S3, or of a service with the same protocol that honours conditional
//! writes.
//!
//! ```text
//! tier ──► bucket (one request, with retries) ──► client (service and credentials)
//!   ├────► upload (large objects, in parts)         probe (whether preconditions are honoured)
//!   └────► direct (URLs for clients; no requests)   walk (which repositories exist)
//! ```
//!
//! Of these layers `bucket` alone retries. The SDK's own retries are turned off.

mod bucket;
mod client;
mod config;
mod direct;
mod error;
mod files;
mod health;
mod probe;
mod tier;
mod upload;
mod walk;

pub(super) use bucket::Bucket;
pub use config::S3Config;
pub(crate) use error::S3Error;
pub(crate) use tier::S3Tier;

#[cfg(test)]
mod services;
#[cfg(test)]
mod tests;
