//! [`Key`]: the names of objects in the store. The only place where a repository's name becomes a
//! path.
//!
//! ```text
//! v1/<host>/<path>.git/current           pointer: replaced by compare-and-swap
//! v1/<host>/<path>.git/lease             who publishes: replaced by compare-and-swap
//! v1/<host>/<path>.git/snapshots/<id>    manifest: created once
//! v1/<host>/<path>.git/segments/<id>     segment: created once
//! v1/<host>/<path>.git/deletions         deletion notice, used ids: replaced by compare-and-swap
//! v1/<host>/<path>.git/lfs/…             the shelf of LFS archives, with the same objects
//! ```

use std::fmt;

use cachewfs_format::{Digest, RepoName, SegmentId, SnapshotId};

/// The suffix of the name of a damaged segment.
const DAMAGED: &str = ".damaged";

/// The name of an object. As text it is a relative path.
///
/// Objects of different repositories are never below one another. No component of a repository's
/// path ends in ".git", so the repository `h/a/current` doesn't collide with the pointer of `h/a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub shelf: Shelf,
    pub object: Object,
}

/// A part of a repository's store that has a pointer, manifests and segments of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shelf {
    repo: RepoName,
    kind: ShelfKind,
}

/// The archives that a shelf is for. The directory of the LFS shelf is in the one of the other
/// shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ShelfKind {
    Snapshots,
    Lfs,
}

impl Shelf {
    pub fn new(repo: &RepoName, kind: ShelfKind) -> Self {
        let repo = repo.clone();
        Self { repo, kind }
    }

    pub fn of_snapshots(repo: &RepoName) -> Self {
        Self::new(repo, ShelfKind::Snapshots)
    }

    pub fn of_lfs(repo: &RepoName) -> Self {
        Self::new(repo, ShelfKind::Lfs)
    }

    /// Returns the shelf whose directory is in this one. The LFS shelf returns itself.
    pub fn below(&self) -> Self {
        Self::of_lfs(&self.repo)
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Key::prefix_of(self))
    }
}

/// An object of a shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    Pointer,
    /// The deletion notice, and the ids of deleted snapshots.
    Deletions,
    /// Which daemon publishes.
    Lease,
    Manifest(SnapshotId),
    Segment(SegmentId),
    /// A segment that was found damaged and moved out of the way.
    Damaged(SegmentId),
}

impl Object {
    /// Returns the snapshot id if this is a manifest.
    pub(super) fn manifest(self) -> Option<SnapshotId> {
        match self {
            Self::Manifest(id) => Some(id),
            _ => None,
        }
    }

    /// Returns the segment id if this is a segment that isn't set aside.
    pub(super) fn segment(self) -> Option<SegmentId> {
        match self {
            Self::Segment(id) => Some(id),
            _ => None,
        }
    }
}

/// The objects of a shelf that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShelfPart {
    Manifests,
    Segments,
}

impl Key {
    pub fn pointer(shelf: &Shelf) -> Self {
        Self::new(shelf, Object::Pointer)
    }

    pub fn lease(shelf: &Shelf) -> Self {
        Self::new(shelf, Object::Lease)
    }

    pub fn manifest(shelf: &Shelf, snapshot: SnapshotId) -> Self {
        Self::new(shelf, Object::Manifest(snapshot))
    }

    pub fn segment(shelf: &Shelf, id: SegmentId) -> Self {
        Self::new(shelf, Object::Segment(id))
    }

    pub fn deletions(shelf: &Shelf) -> Self {
        Self::new(shelf, Object::Deletions)
    }

    pub fn new(shelf: &Shelf, object: Object) -> Self {
        let shelf = shelf.clone();
        Self { shelf, object }
    }

    /// Returns a boxed copy, for errors, which should be small.
    pub fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }

    /// Returns the path that all objects of a shelf begin with. It ends with a slash.
    pub fn prefix_of(shelf: &Shelf) -> String {
        let Shelf { repo, kind } = shelf;
        let part = match kind {
            ShelfKind::Snapshots => "",
            ShelfKind::Lfs => "lfs/",
        };
        format!("v1/{repo}.git/{part}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Self::prefix_of(&self.shelf))?;
        match self.object {
            Object::Pointer => formatter.write_str("current"),
            Object::Deletions => formatter.write_str("deletions"),
            Object::Lease => formatter.write_str("lease"),
            Object::Manifest(id) => write!(formatter, "snapshots/{id}"),
            Object::Segment(id) => write!(formatter, "segments/{id}"),
            Object::Damaged(id) => write!(formatter, "segments/{id}{DAMAGED}"),
        }
    }
}

impl ShelfPart {
    /// Returns the name of their directory.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Manifests => "snapshots",
            Self::Segments => "segments",
        }
    }

    /// Returns the object with this file name, or `None` if this program doesn't write such names.
    pub fn parse(self, name: &str) -> Option<Object> {
        let segment = |name| Digest::parse(name).ok().map(SegmentId);
        match (self, name.strip_suffix(DAMAGED)) {
            (Self::Manifests, _) => SnapshotId::parse(name).ok().map(Object::Manifest),
            (Self::Segments, Some(name)) => segment(name).map(Object::Damaged),
            (Self::Segments, None) => segment(name).map(Object::Segment),
        }
    }
}

#[cfg(test)]
mod tests {
    use cachewfs_format::ObjectId;

    use super::*;

    #[test]
    fn listed_names_are_parsed_back() {
        let repo = RepoName::parse("example.com/a/b").unwrap();
        let shelves = [
            (Shelf::of_snapshots(&repo), "v1/example.com/a/b.git"),
            (Shelf::of_lfs(&repo), "v1/example.com/a/b.git/lfs"),
        ];
        let snapshot = SnapshotId::first(ObjectId::from_bytes(&[7; 20]).unwrap());
        let id = SegmentId(Digest::of(b"x"));
        for (part, object) in [
            (ShelfPart::Manifests, Object::Manifest(snapshot)),
            (ShelfPart::Segments, Object::Segment(id)),
            (ShelfPart::Segments, Object::Damaged(id)),
        ] {
            for (shelf, root) in &shelves {
                let text = Key::new(shelf, object).to_string();
                let directory = format!("{root}/{}/", part.directory());
                let name = text.strip_prefix(&directory).unwrap();

                assert_eq!(part.parse(name), Some(object));
            }
        }
        assert_eq!(ShelfPart::Segments.parse("current"), None);
    }
}
