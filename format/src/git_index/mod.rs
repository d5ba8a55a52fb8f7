//! Reads and assembles the git index of an archive (`gitformat-index(5)`, version 2).
//!
//! 1. An archive has the entries of the index in parts.
//! 2. `entry` reads a part. It accepts only bytes that git itself would write. Otherwise git and
//!    this crate might read one entry in two ways, and a check of its path here would mean nothing.
//! 3. `writer` joins the parts, and writes a new header and checksum around them.
//! 4. `cache_tree` computes the tree extension.
//!
//! A mount accepts no other index, so a daemon publishes no other.

mod cache_tree;
mod entries;
mod entry;
mod writer;

pub use entry::{IndexEntry, index_part_entries};
pub use writer::{GitIndex, GitIndexWriter};

use crate::Error;

fn malformed(reason: &'static str) -> Error {
    let section = "index";
    Error::Malformed { section, reason }
}
