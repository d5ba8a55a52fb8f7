//! The store of segments, manifests and pointers.
//!
//! ```text
//! snapshots, manifests, protect,   publishing and reading: the same on all tiers
//! content, archive, revisions
//! collect, forget                  deleting
//! clock                            the time line that makes deleting safe
//! objects                          the trait: storage for objects
//! blocking                         between tasks and threads that may block
//! disk, directory, listing, share  a tier in a directory, which several daemons may share
//! open_bucket, bucket_metrics      what a tier in a bucket is for this crate, which has none
//! copies                           local copies of a bucket, in memory and on disk
//! tiers                            a directory, a bucket, or a bucket and its local copies
//! lease                            which of several daemons publishes a repository
//! config, s3_config                the sections of the configuration
//! ```

mod archive;
mod blocking;
mod bucket_metrics;
mod clock;
mod collect;
mod config;
mod content;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_runs;
mod copies;
#[cfg(test)]
mod damaged;
mod directory;
mod disk;
mod error;
mod forget;
mod json;
mod key;
mod lease;
mod listing;
mod manifests;
mod objects;
mod open_bucket;
mod protect;
mod reads;
mod revisions;
mod s3_config;
mod share;
mod snapshots;
#[cfg(test)]
mod testing;
mod tiers;
#[cfg(test)]
mod wrapped;

pub use archive::Archive;
pub use blocking::wait;
pub use bucket_metrics::{BucketMetrics, BucketOperation, BucketOutcome, BucketRequest};
pub use clock::NoticePeriod;
pub use collect::{
    Collected, Collection, Keep, MAX_COLLECTIONS, log_collected, log_failed_collection,
};
pub use config::StoreConfig;
pub use content::read_file;
pub use copies::{Copies, CopyLimits};
pub use disk::DiskTier;
pub use error::{BucketError, StoreError, TierError};
pub use key::{Key, Object, Shelf, ShelfKind, ShelfPart};
pub use lease::{Claim, Holder, Lease, LeaseEvent, LeaseMetrics, Leases};
pub use objects::{DirectUrl, Extent, Listed, NewSegment, Objects, Stat, Version, Whole, Written};
pub use open_bucket::{BucketOptions, BucketProblem, BucketTier, OpenBucket, SignUrl};
pub use protect::Protection;
pub use reads::{Reads, TierReads};
pub use revisions::RevisionIndex;
pub use s3_config::S3Config;
pub use snapshots::Store;
pub use tiers::Tiers;
