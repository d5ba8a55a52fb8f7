//! The store of segments, manifests and pointers.
//!
//! ```text
//! snapshots, manifests, protect,   publishing and reading: the same on every tier
//! content, archive, revisions
//! collect, forget                  deleting
//! clock                            the time line that makes deleting safe
//! tier                             the trait: storage for objects
//! disk, listing, share             a tier in a directory, which several daemons may share
//! s3                               a tier in a bucket
//! tiers                            memory, disk and bucket combined into one tier
//! lease                            which of several daemons publishes a repository
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
mod protect;
mod reads;
mod revisions;
mod s3;
mod share;
mod snapshots;
#[cfg(test)]
mod testing;
mod tier;
mod tiers;
#[cfg(test)]
mod wrapped;

pub(crate) use archive::Archive;
pub(crate) use clock::NoticePeriod;
pub(crate) use collect::{
    Collected, Collection, Keep, MAX_COLLECTIONS, log_collected, log_failed_collection,
};
pub use config::StoreConfig;
pub(crate) use content::read_file;
pub(crate) use disk::DiskTier;
pub(crate) use error::{StoreError, TierError};
pub(crate) use lease::{Claim, Holder, Lease, Leases};
pub(crate) use protect::Protection;
pub(crate) use reads::TierReads;
pub(crate) use revisions::RevisionIndex;
pub use s3::S3Config;
pub(crate) use s3::{S3Error, S3Tier};
pub(crate) use snapshots::Store;
pub(crate) use tier::{NewSegment, Written};
pub(crate) use tiers::{TierLimits, Tiers};
