//! Chunks on the workstation's disk.
//!
//! ```text
//! <cache_dir>/v1/<first two digits>/<segment id>.data    content of the segment, sparse
//! <cache_dir>/v1/<first two digits>/<segment id>.meta    segment table, then a mark for each chunk
//! <cache_dir>/v1/pins/<repository>                       ids of the segments never to be evicted
//! ```
//!
//! A mark is a checksum of the chunk's content. Nothing here is believed after a restart until the
//! checksum of what is on disk has been compared with its mark, so that neither a crash nor a
//! damaged disk can show wrong bytes; there is nothing to repair, and no need to sync.

mod disk;
mod evict;
mod overflow;
mod pins;
mod segment_file;

pub(crate) use disk::Cache;
pub(crate) use overflow::Overflow;
pub(crate) use segment_file::SegmentFile;
