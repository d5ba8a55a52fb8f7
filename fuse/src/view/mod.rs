//! The content of a snapshot as the mount shows it: `.git`, bare repository, and work tree.
//!
//! `fs` turns these plain values into inodes. An archive is untrusted, so the mount builds `.git`
//! itself. It takes over refs, HEAD, upstream's URL, packs, commit-graphs and index entries, each
//! after a check. It never takes over hooks, alternates, replaced objects or other configuration.

mod config;
mod error;
mod generation;
mod index_search;
mod refs;
mod static_tree;
mod view;
mod work_tree;

pub(crate) use error::LoadError;
pub(crate) use generation::Generation;
pub(crate) use static_tree::{FileContent, StaticFile, StaticNode, StaticTree};
pub(crate) use view::View;
pub(crate) use work_tree::{Run, WorkTree, WorkTreeFile, WorkTreeNode};
