//! [`Retrying`]: a caller that retries failed calls, and knows that a failed call may have been
//! carried out.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cachewfs_format::{RepoName, SegmentId};

use crate::testing::now;
use crate::{
    Extent, Key, Listed, NewSegment, Objects, Shelf, ShelfPart, Stat, TierError, Tiers, Version,
    Whole, Written,
};

/// How often a call is tried. More than enough while a fourth of all calls fail.
const TRIES: usize = 200;

/// Tiers whose failed calls are retried.
#[derive(Debug)]
pub(super) struct Retrying<'a> {
    tiers: &'a Tiers,
    /// The objects that are asked.
    objects: &'a dyn Objects,
    failures: AtomicUsize,
}

impl<'a> Retrying<'a> {
    pub(super) fn new(tiers: &'a Tiers) -> Self {
        Self {
            tiers,
            objects: tiers.nearest(),
            failures: AtomicUsize::new(0),
        }
    }

    /// Returns the caller that asks the objects which are not copies.
    pub(super) fn authoritative(&self) -> Self {
        Self {
            objects: self.tiers.authoritative(),
            ..Self::new(self.tiers)
        }
    }

    /// Returns how many calls failed and were retried.
    pub(super) fn failures(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }

    /// Returns whether a call failed and should be retried.
    fn has_failed<T>(&self, outcome: &Result<T, TierError>) -> bool {
        let has_failed = is_failure(outcome);
        if has_failed {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        has_failed
    }

    /// Returns the outcome of the last try, and whether an earlier one failed.
    fn try_often<T>(
        &self,
        mut call: impl FnMut() -> Result<T, TierError>,
    ) -> (Result<T, TierError>, bool) {
        let mut outcome = call();
        let mut has_failed = false;
        for _ in 1..TRIES {
            if !self.has_failed(&outcome) {
                break;
            }
            has_failed = true;
            outcome = call();
        }
        (outcome, has_failed)
    }

    fn try_until<T>(&self, call: impl FnMut() -> Result<T, TierError>) -> Result<T, TierError> {
        self.try_often(call).0
    }

    /// Retries a call whose answer may come from local copies while a bucket fails, until it agrees
    /// with the authoritative tier.
    fn try_until_true<T, U: PartialEq>(
        &self,
        call: impl Fn(&dyn Objects) -> Result<(T, Vec<U>), TierError>,
    ) -> Result<T, TierError> {
        loop {
            let (told, near) = self.try_until(|| call(self.objects))?;
            let (_, there) = self.try_until(|| call(self.tiers.authoritative()))?;
            if near == there {
                return Ok(told);
            }
            let failed = self.failures.fetch_add(1, Ordering::SeqCst);
            assert!(
                failed < TRIES * TRIES,
                "the tier doesn't agree with its authoritative tier"
            );
        }
    }

    /// Retries a write. If a failed try was carried out, the next one is too late for its own
    /// object. So the object counts as written if it has these bytes.
    fn write(
        &self,
        (key, bytes): (&Key, &[u8]),
        write: impl FnMut() -> Result<Written, TierError>,
    ) -> Result<Written, TierError> {
        let (written, has_failed) = self.try_often(write);
        if !has_failed
            || written
                .as_ref()
                .is_ok_and(|written| *written == Written::New)
        {
            return written;
        }
        let authoritative = self.tiers.authoritative();
        let present = self.try_until(|| now(authoritative.read_whole(key)))?;
        if present.is_some_and(|present| present.bytes == bytes) {
            return Ok(Written::New);
        }
        written
    }
}

/// Returns whether the bucket failed, and not the request itself.
pub(super) fn is_failure<T>(outcome: &Result<T, TierError>) -> bool {
    matches!(
        outcome,
        Err(TierError::Bucket { .. } | TierError::BucketList { .. })
    )
}

/// Returns the segments in new files.
pub(super) fn copies(segments: &[NewSegment]) -> Vec<NewSegment> {
    let copy = |segment: &NewSegment| {
        let directory = segment.file.parent().unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(directory).unwrap();
        let (mut copy, path) = file.keep().unwrap();
        std::io::copy(&mut File::open(&segment.file).unwrap(), &mut copy).unwrap();
        NewSegment {
            file: path,
            ..segment.clone()
        }
    };
    segments.iter().map(copy).collect()
}

/// The calls, each with the name of the one that it retries.
impl Retrying<'_> {
    pub(super) fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        self.try_until(|| now(self.objects.read_at(key, offset, into)))
    }

    pub(super) fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool {
        self.tiers.read_now(key, offset, into)
    }

    pub(super) async fn fetch_local(&self, wanted: &[Extent]) -> Result<(), TierError> {
        let mut outcome = self.tiers.fetch_local(wanted).await;
        for _ in 1..TRIES {
            if !self.has_failed(&outcome) {
                break;
            }
            outcome = self.tiers.fetch_local(wanted).await;
        }
        outcome
    }

    pub(super) fn fetch_local_soon(&self, wanted: &[Extent]) {
        self.tiers.fetch_local_soon(wanted.to_vec());
    }

    pub(super) fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        self.try_until(|| now(self.objects.read_whole(key)))
    }

    pub(super) fn read_recent(&self, keys: &[Key]) -> Vec<Result<Option<Whole>, TierError>> {
        let retry = |(key, read)| {
            if self.has_failed(&read) {
                self.read_whole(key)
            } else {
                read
            }
        };
        keys.iter()
            .zip(now(self.tiers.read_recent(keys)))
            .map(retry)
            .collect()
    }

    pub(super) fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        self.write((key, bytes), || now(self.objects.create(key, bytes)))
    }

    pub(super) fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let mut absent = 0;
        for segment in &segments {
            if self.stat(&Key::segment(shelf, segment.id))?.is_none() {
                absent += segment.len;
            }
        }
        let create = || now(self.objects.create_segments(shelf, copies(&segments)));
        let (stored, has_failed) = self.try_often(create);
        for segment in segments {
            fs::remove_file(&segment.file).unwrap();
        }
        // The last try counts only the segments that earlier tries left.
        stored.map(|stored| if has_failed { absent } else { stored })
    }

    pub(super) fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        self.write((key, bytes), || {
            now(self.objects.swap(key, expected, bytes))
        })
    }

    pub(super) fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        self.try_until(|| now(self.objects.stat(key)))
    }

    pub(super) fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        self.try_until_true(|tier| {
            let mut listed = now(tier.list(shelf, part))?;
            listed.sort_by_key(|listed| listed.object);
            let objects = listed.iter().map(|listed| listed.object).collect();
            Ok((listed, objects))
        })
    }

    pub(super) fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        self.try_until_true(|tier| {
            let mut repos = now(tier.repositories())?;
            repos.sort();
            Ok((repos.clone(), repos))
        })
    }

    pub(super) fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        self.try_until(|| now(self.objects.delete(keys)))
    }

    pub(super) fn delete_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        self.try_until(|| now(self.tiers.delete_shelf(shelf)))
    }

    pub(super) fn drop_copies(&self, key: &Key) -> bool {
        now(self.tiers.drop_copies(key))
    }

    pub(super) fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        self.try_until(|| now(self.objects.set_aside(shelf, id)))
    }
}
