//! Where segments, manifests and pointers are kept.
//!
//! ```text
//! <root>/v1/<host>/<path>.git/current           pointer: replaced by compare-and-swap
//! <root>/v1/<host>/<path>.git/snapshots/<id>    manifest: written once
//! <root>/v1/<host>/<path>.git/segments/<id>     segment: written once, whole or not at all
//! ```

mod archive;
mod collect;
mod content;
mod disk;
mod error;
mod revisions;

pub(crate) use archive::Archive;
pub(crate) use content::read_file;
pub(crate) use disk::{DiskStore, NewSegment, Written};
pub(crate) use error::StoreError;
pub(crate) use revisions::RevisionIndex;
