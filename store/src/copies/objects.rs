//! The objects of [`Copies`]: reads local copies first, and writes to the bucket first.

use async_trait::async_trait;
use cachewfs_format::{RepoName, SegmentId};
use futures_util::future::try_join_all;
use tracing::warn;

use super::Copies;
use super::fetch::{Fetcher, PartSource, parts};
use super::fill::PART_LEN;
use crate::TierError;
use crate::key::{Key, Object, Shelf, ShelfPart};
use crate::objects::{Listed, NewSegment, Objects, Stat, Version, Whole, Written};

impl Copies {
    /// Drops the remembered pointer when its lease is read or written: the lease's holder may have
    /// published since.
    fn forget_pointer_of(&self, lease: &Key) {
        self.pointers.forget(&Key::pointer(&lease.shelf));
    }

    /// Returns the length of a segment that isn't on disk.
    async fn len_of(&self, key: &Key) -> Result<u64, TierError> {
        if let Some(len) = self.fetcher.len_of(key) {
            return Ok(len);
        }
        let not_found = || TierError::NotFound { key: key.boxed() };
        Ok(self.remote().stat(key).await?.ok_or_else(not_found)?.len)
    }

    /// Fills `into` from the parts of a segment, and fetches missing parts.
    async fn read_parts(
        &self,
        (key, len): (&Key, u64),
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), TierError> {
        let end = offset + into.len() as u64;
        if end > len {
            return Err(TierError::Truncated { key: key.boxed() });
        }
        let wanted = parts(&(offset..end));
        let fetch = wanted.clone().map(|part| self.fetcher.part(key, len, part));
        let got = try_join_all(fetch).await?;
        for (part, got) in wanted.zip(got) {
            let begin = part as u64 * PART_LEN;
            let from = offset.max(begin);
            let to = end.min(begin + PART_LEN);
            let place = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            let Some(into) = into.get_mut(place(from)..place(to)) else {
                continue;
            };
            self.copy_part((key, begin), (got, from), into).await?;
        }
        Ok(())
    }

    async fn copy_part(
        &self,
        (key, begin): (&Key, u64),
        (got, from): (PartSource, u64),
        into: &mut [u8],
    ) -> Result<(), TierError> {
        match got {
            PartSource::Memory(bytes) => {
                let start = usize::try_from(from - begin).unwrap_or(usize::MAX);
                let bytes = bytes.get(start..start.saturating_add(into.len()));
                let short = || TierError::Truncated { key: key.boxed() };
                into.copy_from_slice(bytes.ok_or_else(short)?);
                self.fetcher.reads.memory.note(into.len());
                return Ok(());
            }
            PartSource::Fill(fill) => {
                if fill.read(from, into).await.is_ok() {
                    self.fetcher.reads.disk.note(into.len());
                    return Ok(());
                }
            }
            PartSource::Local => {
                if self.local().read_at(key, from, into).await.is_ok() {
                    return Ok(());
                }
            }
        }
        // The copy was evicted just now, or the disk fails.
        self.remote().read_at(key, from, into).await?;
        self.fetcher.reads.s3.note(into.len());
        Ok(())
    }
}

#[async_trait]
impl Objects for Copies {
    async fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        match self.local().read_at(key, offset, into).await {
            Ok(()) => {
                self.fetcher.space.note_use(key);
                return Ok(());
            }
            Err(TierError::NotFound { .. }) => {}
            // Either the range is beyond the end of the segment, or the copy is cut. The bucket
            // knows.
            Err(TierError::Truncated { .. }) => {
                let stat = self.remote().stat(key).await?;
                let len = stat.map_or(0, |stat| stat.len);
                if offset + into.len() as u64 > len {
                    return Err(TierError::Truncated { key: key.boxed() });
                }
                self.fetcher.drop_copy(key).await;
            }
            Err(error) => {
                warn!(%key, %error, "Can't read a local copy; dropping it");
                self.fetcher.drop_copy(key).await;
            }
        }
        let len = self.len_of(key).await?;
        self.read_parts((key, len), offset, into).await
    }

    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        // Leases and deletion notices are never cached: a decision on an old one could be wrong.
        match key.object {
            Object::Pointer => return self.read_pointer(key).await,
            Object::Lease => {
                let read = self.remote().read_whole(key).await;
                self.forget_pointer_of(key);
                return read;
            }
            Object::Deletions => return self.remote().read_whole(key).await,
            Object::Manifest(_) | Object::Segment(_) | Object::Damaged(_) => {}
        }
        match self.local().read_whole(key).await {
            Ok(Some(copy)) => {
                self.fetcher.space.note_use(key);
                return Ok(Some(copy));
            }
            Ok(None) => {}
            Err(error) => warn!(%key, %error, "Can't read a local copy; reading the bucket"),
        }
        let read = self.remote().read_whole(key).await?;
        if let Some(read) = &read {
            self.keep(key, &read.bytes).await;
        }
        Ok(read)
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        let written = self.remote().create(key, bytes).await?;
        // If another daemon was first, its bytes may differ.
        if written == Written::New {
            self.keep(key, bytes).await;
        }
        Ok(written)
    }

    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let new_bytes = self.remote().create_segments(shelf, segments.clone());
        let new_bytes = new_bytes.await?;
        self.drop_replaced(shelf, &segments).await;
        // The next reader of the snapshot finds it on disk.
        self.keep_segments(shelf, segments).await;
        Ok(new_bytes)
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        // Forgotten also after an error, and if the caller goes away: the request may have been
        // carried out although its answer was lost.
        let forget = OnDrop(|| match key.object {
            Object::Lease => self.forget_pointer_of(key),
            _ => self.pointers.forget(key),
        });
        let written = self.remote().swap(key, expected, bytes).await;
        drop(forget);
        if key.object != Object::Lease && matches!(written, Ok(Written::New)) {
            self.keep(key, bytes).await;
        }
        written
    }

    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        match key.object {
            // Segments never change, so a local copy answers for the bucket.
            Object::Segment(_) | Object::Damaged(_) => match self.local().stat(key).await {
                Ok(Some(stat)) => Ok(Some(stat)),
                _ => self.remote().stat(key).await,
            },
            Object::Manifest(_) => self.stat_manifest(key).await,
            Object::Pointer | Object::Lease | Object::Deletions => self.remote().stat(key).await,
        }
    }

    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        match self.remote().list(shelf, part).await {
            // An incomplete list never leads to a deletion: the collector lists the authoritative
            // tier.
            Err(error) if error.is_bucket_failure() => {
                self.local().list(shelf, part).await.map_err(|_| error)
            }
            listed => listed,
        }
    }

    async fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        let (list, here) = (self.remote().repositories(), self.local().repositories());
        self.repositories.get(list, here).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        // The bucket first. Otherwise a reader could make the copy again before the object is
        // deleted.
        let forget = OnDrop(|| {
            for key in keys {
                self.pointers.forget(key);
                self.manifests.forget(key);
            }
        });
        self.remote().delete(keys).await?;
        drop(forget);
        let keys = keys.to_vec();
        let drop_copies = move |fetcher: &Fetcher| {
            for key in &keys {
                fetcher.space.drop_copy(key);
            }
        };
        self.fetcher.run(drop_copies).await;
        Ok(())
    }

    async fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        let key = Key::segment(shelf, id);
        self.drop_damaged(&key).await;
        self.remote().set_aside(shelf, id).await?;
        // Remembered, because a copy of the damaged segment may still be in flight. It is dropped
        // once the segment is stored again.
        self.set_aside.lock().insert(key);
        Ok(())
    }
}

/// Runs its function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
