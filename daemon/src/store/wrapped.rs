//! A tier that asks a test before it does something: to fail, to wait, to count.

use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use cachewfs_format::{RepoName, SegmentId};

use super::key::{Key, Part, Shelf};
use super::reads::Reads;
use super::tier::{Listed, NewSegment, Stat, Tier, Version, Whole, Written};
use super::{DiskTier, S3Error, TierError};

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Of a part of a segment.
    Read,
    ReadWhole,
    Create,
    CreateSegments,
    Swap,
    Stat,
    List,
    Delete,
}

type Hook = dyn Fn(Call) -> Result<(), S3Error> + Send + Sync;

/// A tier that asks before it does something.
pub(super) struct Wrapped {
    inner: DiskTier,
    ask: Box<Hook>,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl Wrapped {
    pub(super) fn new(
        inner: DiskTier,
        ask: impl Fn(Call) -> Result<(), S3Error> + Send + Sync + 'static,
    ) -> Self {
        let ask = Box::new(ask);
        Self { inner, ask }
    }

    fn ask(&self, call: Call, key: &Key) -> Result<(), TierError> {
        (self.ask)(call).map_err(|source| TierError::S3 {
            key: key.boxed(),
            source: Box::new(source),
        })
    }
}

impl Tier for Wrapped {
    fn reads(&self) -> Arc<Reads> {
        self.inner.reads()
    }

    fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        self.ask(Call::Read, key)?;
        self.inner.read_at(key, offset, into)
    }

    fn read_now(&self, _: &Key, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        self.ask(Call::ReadWhole, key)?;
        self.inner.read_whole(key)
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        self.ask(Call::Create, key)?;
        self.inner.create(key, bytes)
    }

    /// Leaves the files, as a bucket does.
    fn create_segments(&self, shelf: &Shelf, segments: Vec<NewSegment>) -> Result<u64, TierError> {
        self.ask(Call::CreateSegments, &Key::pointer(shelf))?;
        let copy = |segment: NewSegment| {
            let file = segment.file.with_extension("copy");
            std::fs::copy(&segment.file, &file).unwrap();
            NewSegment { file, ..segment }
        };
        let copies = segments.into_iter().map(copy).collect();
        self.inner.create_segments(shelf, copies)
    }

    fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        self.ask(Call::Swap, key)?;
        self.inner.swap(key, expected, bytes)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        self.ask(Call::Stat, key)?;
        self.inner.stat(key)
    }

    fn list(&self, shelf: &Shelf, part: Part) -> Result<Vec<Listed>, TierError> {
        self.ask(Call::List, &Key::pointer(shelf))?;
        self.inner.list(shelf, part)
    }

    fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        self.ask(Call::List, &Key::pointer(&anywhere()))?;
        self.inner.repositories()
    }

    fn hold_for_deleting(&self, shelf: &Shelf) -> Result<Option<File>, TierError> {
        self.inner.hold_for_deleting(shelf)
    }

    fn authority(&self) -> &dyn Tier {
        self
    }

    fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        let any = Key::pointer(&anywhere());
        self.ask(Call::Delete, keys.first().unwrap_or(&any))?;
        self.inner.delete(keys)
    }

    fn delete_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        self.ask(Call::Delete, &Key::pointer(shelf))?;
        self.inner.delete_shelf(shelf)
    }

    fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        self.inner.set_aside(shelf, id)
    }
}

fn anywhere() -> Shelf {
    Shelf::of_snapshots(&RepoName::parse("example.com/anywhere").unwrap())
}

/// Counts calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// Where calls wait while it is shut.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(super) fn set_shut(&self, is_shut: bool) {
        *self.0.0.lock().unwrap() = is_shut;
        self.0.1.notify_all();
    }

    pub(super) fn pass(&self) {
        let mut is_shut = self.0.0.lock().unwrap();
        while *is_shut {
            is_shut = self.0.1.wait(is_shut).unwrap();
        }
    }
}
