//! [`Fetcher`]: fetches parts of segments from the bucket, each part once for all waiters.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cachewfs_base::BufferPool;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::fill::{Fill, PART_LEN, PartState};
use super::memory::Memory;
use super::space::Space;
use crate::blocking::run_blocking;
use crate::key::Key;
use crate::objects::{Extent, Objects, Stat};
use crate::reads::Reads;
use crate::{DiskTier, TierError};

/// At most this many units of [`UNIT`] bytes are fetched at the same time, and held in memory: 48
/// MiB.
const BUDGET: u32 = 768;
const UNIT: u64 = 64 << 10;
/// At least this many units are counted for a part, so that at most 32 parts are fetched at the
/// same time.
const MIN_UNITS: u32 = BUDGET / 32;
/// At most this many segments are being filled; each has an open file. Of further segments, parts
/// are fetched one by one.
const MAX_FILLS: usize = 512;
/// At most this many segments are completed in the background at the same time.
pub(super) const COMPLETERS: usize = 2;
/// At most this many unused buffers are kept: as many as are read ahead of one client.
const MAX_FREE_BUFFERS: usize = 8;
/// How often fetching the rest of a segment may fail before it is given up.
const TRIES: usize = 3;

/// Fetches parts of segments. A handle: clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Fetcher(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) remote: Arc<dyn Objects>,
    pub(super) local: DiskTier,
    pub(super) space: Arc<Space>,
    pub(super) memory: Memory,
    pub(super) runtime: Handle,
    pub(super) reads: Arc<Reads>,
    tmp: PathBuf,
    budget: Arc<Semaphore>,
    /// Buffers for parts. Shorter parts are of all lengths, so their buffers would rarely fit
    /// another.
    buffers: BufferPool,
    fills: Mutex<Fills>,
    /// Notified when a fill is added.
    has_fills: Notify,
}

#[derive(Debug, Default)]
struct Fills {
    by_key: HashMap<Key, Arc<Fill>>,
    /// Fills that no background task has begun to complete.
    waiting: VecDeque<Arc<Fill>>,
}

/// Where the caller finds the part that it asked for.
#[derive(Debug)]
pub(super) enum PartSource {
    Memory(Bytes),
    Fill(Arc<Fill>),
    /// The whole segment is on disk by now.
    Local,
}

impl std::ops::Deref for Fetcher {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Fetcher {
    pub(super) fn new(
        remote: Arc<dyn Objects>,
        (local, tmp): (DiskTier, PathBuf),
        (space, memory): (Arc<Space>, Memory),
        reads: Arc<Reads>,
    ) -> Self {
        Self(Arc::new(Inner {
            remote,
            local,
            space,
            memory,
            runtime: Handle::current(),
            reads,
            tmp,
            budget: Arc::new(Semaphore::new(BUDGET as usize)),
            buffers: BufferPool::new(usize::try_from(PART_LEN).unwrap_or(0), MAX_FREE_BUFFERS),
            fills: Mutex::default(),
            has_fills: Notify::new(),
        }))
    }

    /// Returns the length of a segment that is being filled.
    pub(super) fn len_of(&self, key: &Key) -> Option<u64> {
        self.fills.lock().by_key.get(key).map(|fill| fill.len)
    }

    /// Returns whether the whole extent can be read without the bucket.
    pub(super) async fn is_local(&self, extent: &Extent) -> bool {
        let fill = self.fills.lock().by_key.get(&extent.key).map(Arc::clone);
        let is_in_file = |part| {
            let fill = fill.as_ref()?;
            Some(*fill.try_lock(part)? == PartState::File)
        };
        let is_copy = |stat: &Stat| stat.len == extent.len;
        let local = self.local.stat(&extent.key).await;
        matches!(local, Ok(Some(stat)) if is_copy(&stat))
            || parts(&extent.range)
                .all(|part| self.memory.has(&extent.key, part) || is_in_file(part) == Some(true))
    }

    /// Returns where a part can be read, and fetches it first if necessary.
    pub(super) async fn part(
        &self,
        key: &Key,
        len: u64,
        part: usize,
    ) -> Result<PartSource, TierError> {
        if let Some(bytes) = self.memory.get(key, part) {
            return Ok(PartSource::Memory(bytes));
        }
        let Some(fill) = self.fill(key, len).await else {
            return Ok(PartSource::Local);
        };
        let Some(state) = fill.lock(part).await else {
            return Err(TierError::Truncated { key: key.boxed() });
        };
        // Another task may have fetched the part while this one waited for the lock.
        if let Some(bytes) = self.memory.get(key, part) {
            return Ok(PartSource::Memory(bytes));
        }
        if *state == PartState::File {
            return Ok(PartSource::Fill(fill));
        }
        self.fetch_in_turn(fill, part, state)
            .await
            .map(PartSource::Memory)
    }

    /// Fetches a part once there is a permit for it. If the caller goes away after that, the
    /// request goes on for others.
    async fn fetch_in_turn(
        &self,
        fill: Arc<Fill>,
        part: usize,
        state: OwnedMutexGuard<PartState>,
    ) -> Result<Bytes, TierError> {
        let key = fill.key.boxed();
        // The lock on the part is held while the permit is waited for. So only one task queues for
        // each part, and the others find the part when they get the lock.
        let units = units(&fill.range(part));
        let permit = Arc::clone(&self.budget).acquire_many_owned(units).await;
        let Ok(permit) = permit else {
            return Err(TierError::NotFound { key });
        };
        let fetched = self.fetch(fill, part, (state, permit)).await;
        fetched.unwrap_or(Err(TierError::NotFound { key }))
    }

    /// Starts to fetch the missing parts of `extents`, as far as permits are free.
    pub(super) async fn fetch_soon(&self, extents: &[Extent]) {
        for extent in extents {
            let Some(fill) = self.fill(&extent.key, extent.len).await else {
                continue;
            };
            for part in parts(&extent.range) {
                if self.memory.has(&extent.key, part) {
                    continue;
                }
                let units = units(&fill.range(part.min(fill.count().saturating_sub(1))));
                let permit = Arc::clone(&self.budget).try_acquire_many_owned(units);
                let Ok(permit) = permit else { return };
                if let Some(state) = fill.try_lock(part)
                    && *state == PartState::Bucket
                {
                    // A reader that needs the part asks again, and gets the error of its own
                    // request.
                    drop(self.fetch(Arc::clone(&fill), part, (state, permit)));
                }
            }
        }
    }

    /// Fetches a part in a task of its own. The waiters get it before it is written to disk.
    fn fetch(
        &self,
        fill: Arc<Fill>,
        part: usize,
        (mut state, permit): (OwnedMutexGuard<PartState>, OwnedSemaphorePermit),
    ) -> oneshot::Receiver<Result<Bytes, TierError>> {
        let (tell, told) = oneshot::channel();
        let this = self.clone();
        // The task owns the lock and the permit. So it goes on if its waiter is cancelled, and
        // nobody fetches the part a second time.
        self.runtime.spawn(async move {
            let bytes = match this.read(&fill, part).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    debug!(key = %fill.key, part, %error, "A part can't be fetched");
                    // Here and below: the receiver is gone if the waiter was cancelled.
                    tell.send(Err(error)).ok();
                    return;
                }
            };
            tell.send(Ok(bytes.clone())).ok();
            let write = move |this: &Self| {
                if !fill.write(part, &bytes) {
                    this.forget(&fill);
                    return;
                }
                *state = PartState::File;
                drop((state, permit));
                if fill.note_written() {
                    this.finish(&fill);
                }
            };
            this.run(write).await;
        });
        told
    }

    /// Runs `work` on a thread that may block. If the caller goes away, the work goes on to its
    /// end.
    pub(super) async fn run(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        // Nothing is left to do if the runtime is shutting down.
        run_blocking(move || work(&this)).await;
    }

    /// Removes a copy that is stale.
    pub(super) async fn drop_copy(&self, key: &Key) {
        let key = key.clone();
        self.run(move |this| this.space.drop_copy(&key)).await;
    }

    /// Returns a part from memory, or from the bucket.
    async fn read(&self, fill: &Fill, part: usize) -> Result<Bytes, TierError> {
        // Bytes from memory are written to the file too. Otherwise a fill that is begun again after
        // a failure would never be complete, and would keep its reserved space.
        if let Some(bytes) = self.memory.get(&fill.key, part) {
            return Ok(bytes);
        }
        let range = fill.range(part);
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut buffer = self.buffers.take_exact(len);
        let read = self.remote.read_at(&fill.key, range.start, buffer.as_mut());
        read.await?;
        let bytes = buffer.into_bytes();
        self.reads.s3.note(bytes.len());
        self.memory.put(&fill.key, part, bytes.clone());
        // Checked after the insertion. `drop_damaged` sets the mark first and clears the memory
        // afterwards, so one of the two removes the bytes.
        if fill.is_damaged() {
            self.memory.forget(&fill.key);
        }
        Ok(bytes)
    }

    /// Makes the file of a complete fill a local copy. Blocks.
    fn finish(&self, fill: &Arc<Fill>) {
        match fill.finish(&self.local.directory().path(&fill.key)) {
            // Checked after the copy has its name, for the same reason as in `read`.
            Ok(()) if fill.is_damaged() => self.space.drop_copy(&fill.key),
            Ok(()) => {
                // Released first. Counted twice for a moment, the file would evict other copies.
                fill.release();
                self.space.add(&fill.key, fill.len);
            }
            Err(error) => {
                warn!(key = %fill.key, %error, "The disk takes no copy of a segment");
                self.space.free_some();
            }
        }
        self.forget(fill);
    }

    /// Drops the local copies of a damaged segment, and ends its fill. Blocks.
    pub(super) fn drop_damaged(&self, key: &Key) {
        let fill = self.fills.lock().by_key.remove(key);
        if let Some(fill) = fill {
            fill.note_damaged();
        }
        self.space.drop_copy(key);
        self.memory.forget(key);
    }

    /// Takes a fill off the list. The next reader starts a new one.
    fn forget(&self, fill: &Arc<Fill>) {
        let mut fills = self.fills.lock();
        let listed = fills.by_key.get(&fill.key);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, fill)) {
            fills.by_key.remove(&fill.key);
        }
    }

    /// Returns the fill of a segment, or `None` if the segment is on disk.
    async fn fill(&self, key: &Key, len: u64) -> Option<Arc<Fill>> {
        let known = |fills: &Fills| fills.by_key.get(key).map(Arc::clone);
        if let Some(fill) = known(&self.fills.lock()) {
            return Some(fill);
        }
        // A fill is taken off the list only after its copy is on disk. So a segment that was just
        // completed is found here.
        let local = self.local.stat(key).await;
        if matches!(local, Ok(Some(stat)) if stat.len == len) {
            return None;
        }
        let new = Arc::new(Fill::new(key, len, (&self.space, &self.tmp)));
        let mut fills = self.fills.lock();
        // Looked up again: the lock was not held while the disk was looked at.
        if let Some(fill) = known(&fills) {
            return Some(fill);
        }
        if fills.by_key.len() < MAX_FILLS {
            fills.by_key.insert(key.clone(), Arc::clone(&new));
            fills.waiting.push_back(Arc::clone(&new));
            self.has_fills.notify_one();
        }
        Some(new)
    }

    /// Completes the segments of which a reader wanted a part, one after the other, until the
    /// daemon stops.
    pub(super) async fn complete_fills(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let next = self.fills.lock().waiting.pop_front();
            let Some(fill) = next else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.has_fills.notified() => continue,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.complete(&fill) => {}
            }
        }
    }

    async fn complete(&self, fill: &Arc<Fill>) {
        let mut failures = 0;
        let mut part = 0;
        while part < fill.count() && failures < TRIES && fill.takes_parts() {
            match self.complete_part(fill, part).await {
                Ok(()) => part += 1,
                Err(error) => {
                    debug!(key = %fill.key, %error, "Fetching the rest of a segment failed");
                    failures += 1;
                }
            }
        }
        if failures > 0 {
            self.forget(fill);
        }
    }

    /// Fetches a part into the file of its fill, unless it is there.
    async fn complete_part(&self, fill: &Arc<Fill>, part: usize) -> Result<(), TierError> {
        let state = fill.lock(part).await.ok_or_else(|| TierError::NotFound {
            key: fill.key.boxed(),
        })?;
        if *state == PartState::File {
            return Ok(());
        }
        let fetched = self.fetch_in_turn(Arc::clone(fill), part, state).await;
        fetched.map(drop)
    }
}

/// Returns the indexes of the parts that `range` touches.
pub(super) fn parts(range: &Range<u64>) -> Range<usize> {
    let part = |at: u64| usize::try_from(at / PART_LEN).unwrap_or(usize::MAX);
    if range.is_empty() {
        return 0..0;
    }
    part(range.start)..part(range.end - 1) + 1
}

fn units(range: &Range<u64>) -> u32 {
    let units = (range.end - range.start).div_ceil(UNIT);
    u32::try_from(units)
        .unwrap_or(BUDGET)
        .clamp(MIN_UNITS, BUDGET)
}
