//! [`View`]: what the mount shows of a repository at one moment.

use std::sync::Arc;

use super::{Generation, StaticTree};
use crate::ino::Tree;

/// The state of a repository as the mount shows it at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The generation whose refs, index and work tree are shown.
    pub generation: Arc<Generation>,
    /// The objects shown: all of `generation`, and possibly more. Objects of a newer generation
    /// appear before its refs, and superseded packs stay for a while.
    pub objects: Arc<StaticTree>,
}

impl View {
    /// Returns the files and directories of a small tree.
    pub(crate) fn tree(&self, tree: Tree) -> &StaticTree {
        match tree {
            Tree::Git => &self.generation.git,
            Tree::Objects | Tree::Bare | Tree::Inner => &self.objects,
        }
    }
}
