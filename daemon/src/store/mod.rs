//! Where segments, manifests and pointers are kept.
//!
//! ```text
//! snapshots, manifests, secure, collect, forget,
//! content, archive, revisions      what the daemon does: the same on every tier
//! tier                    what a place for objects can do
//! disk, listing, share    a directory, which several daemons may have
//! lease                   which of several daemons publishes
//! s3, tiers               a bucket; that, a directory and memory as one
//! ```

mod archive;
mod clock;
mod collect;
mod config;
mod content;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod damaged;
mod disk;
mod error;
mod forget;
mod key;
mod lease;
mod listing;
mod manifests;
mod reads;
mod revisions;
mod s3;
mod secure;
mod share;
mod snapshots;
#[cfg(test)]
mod testing;
mod tier;
mod tiers;
#[cfg(test)]
mod wrapped;

pub(crate) use archive::Archive;
pub(crate) use clock::Notice;
pub(crate) use collect::{Collected, Collection, Keep};
pub use config::StoreConfig;
pub(crate) use content::read_file;
pub(crate) use disk::DiskTier;
pub(crate) use error::{StoreError, TierError};
pub(crate) use lease::{Claim, Holder, Lease, Leases};
pub(crate) use reads::TierReads;
pub(crate) use revisions::RevisionIndex;
pub use s3::S3Config;
pub(crate) use s3::{S3Error, S3Tier};
pub(crate) use secure::Secured;
pub(crate) use snapshots::Store;
pub(crate) use tier::{NewSegment, Written};
pub(crate) use tiers::{Limits, Tiers};
