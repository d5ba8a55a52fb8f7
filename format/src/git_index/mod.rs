//! The git index of an archive (`gitformat-index(5)`, version 2): what a mount accepts, and so what a
//! daemon publishes.
//!
//! An archive has the entries in parts. `entry` reads them, and accepts only what git would write: where
//! git and this crate could read the same bytes in two ways, they are refused. `writer` puts an index
//! together, with everything around the entries made anew; `cache_tree` makes its tree extension.

mod cache_tree;
mod entry;
mod writer;

pub use entry::{IndexEntry, index_part_entries};
pub use writer::{GitIndex, GitIndexWriter};

use crate::Error;

fn malformed(reason: &'static str) -> Error {
    let section = "index";
    Error::Malformed { section, reason }
}
