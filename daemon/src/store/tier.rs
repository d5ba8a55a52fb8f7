//! What a place for objects can do; the store is built on nothing else.
//!
//! The contract is `contract/`, which every tier and every wrapper of one runs.

use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cachewfs_format::{RepoName, SegmentId};
use futures_util::future::BoxFuture;

use super::TierError;
use super::key::{Key, Object, Part, Shelf};
use super::reads::Reads;
use crate::metrics::S3Metrics;

/// A place for objects. An object appears whole or not at all. All calls may block, for as long as the
/// disk or the network takes: they are for threads that may.
pub(crate) trait Tier: Debug + Send + Sync {
    /// Whether it is a directory and nothing else.
    fn is_directory(&self) -> bool {
        false
    }

    /// What it was read for.
    fn reads(&self) -> Arc<Reads>;

    /// The requests to the bucket, if it has one.
    fn s3(&self) -> Option<Arc<S3Metrics>> {
        None
    }

    /// Fills `into` with the bytes of an object from `offset` on; [`TierError::Truncated`] if it has
    /// fewer.
    fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError>;

    /// The same if it needs no waiting: tells whether `into` is filled.
    fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool;

    /// Waits until what is wanted can be read without the network, or takes no longer than it must.
    fn bring<'a>(&'a self, wanted: &'a [Extent]) -> BoxFuture<'a, Result<(), TierError>> {
        let _ = wanted;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Begins to bring what will be wanted; may do a part of it, or nothing. Looks at the disk.
    fn bring_soon(&self, wanted: &[Extent]) {
        let _ = wanted;
    }

    /// Where a client may read this extent by itself, if it isn't near and that is wanted. Looks at the disk.
    fn direct<'a>(&'a self, wanted: &'a Extent) -> BoxFuture<'a, Option<DirectUrl>> {
        let _ = wanted;
        Box::pin(std::future::ready(None))
    }

    /// Reads a whole object, which must be small enough for memory: a manifest or a pointer. A pointer may be
    /// older than what [`Tier::authority`] has, for a second, or while that doesn't answer: a swap then fails.
    fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError>;

    /// Stores an object unless there is one. Of those who race, one is told [`Written::New`].
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError>;

    /// Stores segments unless they are there; their files may be gone afterwards. When this returns, a
    /// crash loses none of them. Gives the number of bytes that are new.
    fn create_segments(&self, shelf: &Shelf, segments: Vec<NewSegment>) -> Result<u64, TierError>;

    /// Stores an object in place of the one with the version `expected`, or of none. Of those who race
    /// with the same expectation, one is told [`Written::New`].
    fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError>;

    /// How long an object is and when it was stored, if there is one.
    fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError>;

    /// The objects of a part of a shelf, in no order; what is not ours is left out.
    fn list(&self, shelf: &Shelf, part: Part) -> Result<Vec<Listed>, TierError>;

    /// Reads such objects that may be half a minute old, each as [`Tier::read_whole`] would.
    fn read_lately(&self, keys: &[Key]) -> Vec<Result<Option<Whole>, TierError>> {
        keys.iter().map(|key| self.read_whole(key)).collect()
    }

    /// All repositories that have a pointer, in no order, and perhaps some that have none yet; it may be
    /// half a minute old.
    fn repositories(&self) -> Result<Vec<RepoName>, TierError>;

    /// Where what counts is, and not a copy. By default that is this tier.
    fn authority(&self) -> &dyn Tier;

    /// Held while objects of a shelf are looked at and deleted, so that nobody stores, or finds
    /// there already, in between what is about to go. By default nothing can be held: then it has to be
    /// announced first what is to go.
    fn hold_for_deleting(&self, _shelf: &Shelf) -> Result<Option<File>, TierError> {
        Ok(None)
    }

    /// Deletes objects, those that are there; all at the same time if it can.
    fn delete(&self, keys: &[Key]) -> Result<(), TierError>;

    /// Deletes what is left of a shelf whose pointer and manifests are gone, but for what it says of deletions
    /// and what is below it. By default nothing, as others may be about to name its segments.
    fn delete_shelf(&self, _shelf: &Shelf) -> Result<(), TierError> {
        Ok(())
    }

    /// Drops copies of an object that were found to be no good; tells whether there may have been some. By default
    /// there are none.
    fn drop_copies(&self, _key: &Key) -> bool {
        false
    }

    /// Makes room for who found none at `path`, if copies of what is elsewhere take it: removes half of them, or
    /// all; tells whether there were any.
    fn make_room(&self, path: &Path, all: bool) -> bool {
        let _ = (path, all);
        false
    }

    /// Puts a segment that was found damaged out of the way, if it is there, so that it can be stored again;
    /// with all copies of it.
    fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError>;
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) key: Key,
    /// Of the segment, in bytes.
    pub(crate) len: u64,
    /// Half-open, within the segment.
    pub(crate) range: Range<u64>,
}

/// A URL that is good for one range of one object, for a while, whoever has it: a secret, never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DirectUrl(pub(super) String);

impl DirectUrl {
    /// For who may have it.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl Debug for DirectUrl {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("DirectUrl(***)")
    }
}

/// A whole object.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Vec<u8>,
    pub(crate) version: Version,
}

/// Tells one state of an object from another; each tier has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(super) String);

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// In bytes.
    pub(crate) len: u64,
    /// When it was stored.
    pub(crate) stored_at: SystemTime,
}

/// An object that was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) object: Object,
    pub(crate) stat: Stat,
}

/// A finished segment that is not yet in the store.
#[derive(Clone, Debug)]
pub(crate) struct NewSegment {
    pub(crate) id: SegmentId,
    pub(crate) file: PathBuf,
    pub(crate) len: u64,
}

/// What storing something did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there now.
    New,
    /// Something else was there before, and still is.
    TooLate,
}
