//! [`Objects`]: storage for objects. The store is built on nothing else.
//!
//! The tests in `contract` say what it must do. They run against a directory, a bucket, the local
//! copies of one, and every wrapper.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use cachewfs_format::{RepoName, SegmentId};

use super::TierError;
use super::key::{Key, Object, Shelf, ShelfPart};

/// Storage for objects. An object appears whole or not at all.
///
/// A call that is dropped may have been carried out, or may be carried out later. Either way its
/// object is whole or isn't there.
#[async_trait]
pub trait Objects: Debug + Send + Sync {
    /// Fills `into` with the bytes of an object from `offset` on. Returns [`TierError::Truncated`]
    /// if the object is too short.
    async fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError>;

    /// Reads a whole object that is small enough for memory: a manifest or a pointer.
    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError>;

    /// Stores an object unless it exists. If several callers race, exactly one gets
    /// [`Written::New`].
    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError>;

    /// Stores the segments that don't exist yet, and returns the number of bytes that are new. When
    /// this returns, they survive a crash. Their files may be gone.
    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError>;

    /// Replaces an object if its version is `expected`, or creates it if `expected` is `None`. If
    /// several callers race with the same expectation, exactly one gets [`Written::New`].
    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError>;

    /// Returns how long an object is and when it was stored, or `None` if it doesn't exist.
    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError>;

    /// Lists the manifests or the segments of a shelf, in no order. Leaves out names that this
    /// program doesn't write.
    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError>;

    /// Returns all repositories that have a pointer, in no order, and perhaps some that have none
    /// yet.
    async fn repositories(&self) -> Result<Vec<RepoName>, TierError>;

    /// Deletes the objects that exist, concurrently if possible.
    async fn delete(&self, keys: &[Key]) -> Result<(), TierError>;

    /// Moves a damaged segment out of the way, if it exists, so that it can be stored again.
    async fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError>;
}

/// A range of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub key: Key,
    /// The length of the segment, in bytes.
    pub len: u64,
    /// Half-open, within the segment.
    pub range: Range<u64>,
}

/// A URL with which anybody can read one range of one object for a while. It is a secret and is
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectUrl(String);

impl DirectUrl {
    /// Makes a URL that [`Debug`] doesn't print.
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// Returns the URL, for the client that asked for it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl Debug for DirectUrl {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("DirectUrl(***)")
    }
}

/// The content of an object, with its version.
#[derive(Clone, Debug)]
pub struct Whole {
    pub bytes: Vec<u8>,
    pub version: Version,
    /// When the tier that has the object was asked. This is earlier than the call if the answer was
    /// remembered.
    pub read_at: Instant,
}

/// Identifies one state of an object. Each tier has its own kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Makes a version of the text that the tier knows it by.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text that the tier knows it by.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The length and age of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// In bytes.
    pub len: u64,
    /// When the object was stored, by the clock of the tier.
    pub stored_at: SystemTime,
}

/// An object in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub object: Object,
    pub stat: Stat,
}

/// A finished segment that is not yet in the store.
#[derive(Clone, Debug)]
pub struct NewSegment {
    pub id: SegmentId,
    pub file: PathBuf,
    pub len: u64,
}

/// The outcome of storing an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object was stored.
    New,
    /// Another object was there before, and still is.
    TooLate,
}
