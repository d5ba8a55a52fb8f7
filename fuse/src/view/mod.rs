//! The content of a snapshot as the mount shows it: `.git`, objects for clones, and work tree.
//!
//! `fs` turns these plain values into inodes. An archive is untrusted: `.git` is built here, and
//! only its refs, HEAD, packs, commit-graphs and index entries are taken over, after checks. Hooks,
//! alternates, replaced objects and most of the configuration never are.

mod config;
mod generation;
mod index_search;
mod refs;
mod static_tree;
mod work_tree;

pub(crate) use generation::TAIL_LEN;
pub(crate) use generation::{Generation, LoadError};
pub(crate) use static_tree::{FileContent, StaticFile, StaticNode, StaticTree};
pub(crate) use work_tree::{WorkTree, WorkTreeFile, WorkTreeNode};
