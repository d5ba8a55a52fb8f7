//! Publishing the Git LFS objects that the work tree of a commit needs, as an archive of their own.
//!
//! ```text
//! pointers in the tree ─► those that no earlier archive has ─► upstream ─► checked, stored ─► archive
//! ```
//!
//! It has a manifest and a pointer of its own, and runs after the snapshot is published, beside all
//! else: fetching may take long, and holds nothing up. It reads the mirror as `git upload-pack` does.

mod archive;
mod error;
mod list;
mod pointer;

pub(crate) use error::LfsError;
pub(crate) use pointer::LfsOid;
