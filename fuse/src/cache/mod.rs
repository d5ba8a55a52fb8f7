//! The cache of chunks on the workstation's disk.
//!
//! ```text
//! <cache_dir>/v1/<first two digits>/<segment id>.data    content of the segment, sparse
//! <cache_dir>/v1/<first two digits>/<segment id>.meta    segment table, then a mark for each chunk
//! <cache_dir>/v1/pins/<repository>                       ids of segments that are never evicted
//! <cache_dir>/v1/kept/<digest>/<digest>                  what a repository looked like last
//! <cache_dir>/v1/lock                                    held by a mount that evicts or pins
//! <cache_dir>/v1/…/.<letters>                            a file that is being written
//! ```
//!
//! A mark is a checksum of the chunk's content. After a restart, a chunk counts as cached only once
//! its content has been compared with its mark. So neither a crash nor a damaged disk can show
//! wrong bytes. Chunks therefore need no `fsync`, and a crash leaves nothing to repair.

mod disk;
mod evict;
mod failures;
mod kept;
mod marks;
mod open_files;
mod overflow;
mod pins;
mod segment_file;
mod staged;
#[cfg(test)]
mod tests;

pub(crate) use disk::Cache;
pub(crate) use failures::CacheFailures;
pub(crate) use kept::{KeptHeader, KeptSnapshot, KeptSnapshots};
pub(crate) use marks::{MarkedBytes, Marks};
pub(crate) use overflow::Overflow;
pub(crate) use segment_file::SegmentFile;
