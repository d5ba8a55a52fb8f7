//! [`Listing`]: the entries of a directory.

use std::sync::Arc;

use super::{Attr, Node};
use crate::ino::Ino;
use crate::repository::Repository;
use crate::view::View;

/// An entry of a directory.
#[derive(Debug)]
pub(crate) struct DirectoryEntry {
    /// The name.
    pub name: Vec<u8>,
    /// The attributes of the file or directory.
    pub attr: Attr,
    pub(super) node: Node,
}

/// The entries of a directory at one moment, `.` and `..` first.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<DirectoryEntry>,
    pub(super) made_from: MadeFrom,
}

/// The origin of a listing.
#[derive(Debug)]
pub(super) enum MadeFrom {
    /// A view of the directory's repository.
    View(Arc<Repository>, View),
    /// The names of repositories.
    Names,
    /// Something that another process showed, and this one took over.
    AnotherProcess,
}

impl Listing {
    /// Returns whether the listing is of the current view. The kernel must not cache one that
    /// isn't.
    pub(crate) fn is_current(&self) -> bool {
        match &self.made_from {
            MadeFrom::View(repository, made_from) => {
                let now = repository.view();
                Arc::ptr_eq(&now.generation, &made_from.generation)
                    && Arc::ptr_eq(&now.objects, &made_from.objects)
            }
            MadeFrom::Names => true,
            MadeFrom::AnotherProcess => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct OpenDirectory {
    pub(super) ino: Ino,
    pub(super) listing: Option<Arc<Listing>>,
}
