//! The store of the model. Each call waits for its turn, and its actor may die at it.

use std::time::Instant;

use async_trait::async_trait;
use cachewfs_format::{RepoName, SegmentId};

use super::world::{Actor, stat};
use crate::TierError;
use crate::key::{Key, Shelf, ShelfPart};
use crate::objects::{Listed, NewSegment, Objects, Stat, Version, Whole, Written};

#[async_trait]
impl Objects for Actor {
    async fn read_at(&self, key: &Key, _: u64, _: &mut [u8]) -> Result<(), TierError> {
        Err(TierError::NotFound { key: key.boxed() })
    }

    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        self.call(key, |state| {
            let version = state.version(key)?;
            let bytes = state.objects.get(key)?.0.clone();
            let read_at = Instant::now();
            Some(Whole {
                bytes,
                version,
                read_at,
            })
        })
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        self.swap(key, None, bytes).await
    }

    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        for segment in segments {
            self.create(&Key::segment(shelf, segment.id), b"segment")
                .await?;
        }
        Ok(0)
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        self.call(key, |state| {
            if state.version(key).as_ref() != expected {
                return Written::TooLate;
            }
            state.write(key, bytes);
            Written::New
        })
    }

    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        self.call(key, |state| {
            let (bytes, at, _) = state.objects.get(key)?;
            Some(stat(bytes, *at))
        })
    }

    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        let key = Key::pointer(shelf);
        self.call(&key, |state| state.listed(shelf, part))
    }

    async fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        Ok(Vec::new())
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        for key in keys {
            self.call(key, |state| {
                state.objects.remove(key);
                state.check();
            })?;
        }
        Ok(())
    }

    async fn set_aside(&self, _: &Shelf, _: SegmentId) -> Result<(), TierError> {
        Ok(())
    }
}
