//! What a snapshot looks like in the mount, as plain values: the git directory, the objects that
//! clones borrow, the work tree.

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
