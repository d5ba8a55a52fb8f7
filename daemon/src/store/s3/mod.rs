//! Objects in a bucket of S3, or of anything that speaks its protocol and honours conditional writes.
//!
//! ```text
//! tier ──► bucket (one request, tried again) ──► client (whom to ask, as whom)
//!   ├────► upload (large objects, in parts)         probe (whether conditions are honoured)
//!   └────► direct (URLs for clients: asks nobody)   walk (which repositories there are)
//! ```
//!
//! Of the layers here `bucket` alone tries again; the SDK is told not to.

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
