//! [`Wrapped`]: objects for tests, with a hook before and after each call: to fail, to wait, to
//! count, or to cut an answer.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cachewfs_format::{RepoName, SegmentId};
use cachewfs_tests::Dice;

use crate::{
    BucketError, Key, Listed, NewSegment, Objects, Shelf, ShelfPart, Stat, TierError, Version,
    Whole, Written,
};

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Of a range of a segment.
    Read,
    ReadWhole,
    Create,
    CreateSegments,
    Swap,
    Stat,
    List,
    Delete,
    SetAside,
}

type Hook = dyn Fn(Call) -> Result<(), BucketError> + Send + Sync;

/// Objects with hooks before and after each call.
pub(crate) struct Wrapped {
    inner: Arc<dyn Objects>,
    before: Arc<Hook>,
    after: Arc<Hook>,
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl Wrapped {
    pub(crate) fn new(
        inner: Arc<dyn Objects>,
        before: impl Fn(Call) -> Result<(), BucketError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            before: Arc::new(before),
            after: Arc::new(|_| Ok(())),
        }
    }

    /// Adds a hook that runs after each call. If it fails, the call was carried out, but its caller
    /// gets the error. A failed read has filled half of the buffer, and a failed write of segments
    /// has stored half of them.
    fn and_after(
        self,
        after: impl Fn(Call) -> Result<(), BucketError> + Send + Sync + 'static,
    ) -> Self {
        let after = Arc::new(after);
        Self { after, ..self }
    }

    /// Delays and counts each call.
    pub(crate) fn delaying(inner: Arc<dyn Objects>, count: Count) -> Self {
        Self::new(inner, move |_| {
            count.note();
            // Nothing wakes it: only the delay matters.
            std::thread::park_timeout(Duration::from_micros(300));
            Ok(())
        })
    }

    /// Fails an eighth of the calls before, and an eighth after they are carried out.
    pub(crate) fn failing(inner: Arc<dyn Objects>) -> Self {
        let dice = Arc::new(Mutex::new(Dice::new(1)));
        let fail = move |_| match dice.lock().unwrap().below(8) {
            0 => Err(refusal()),
            _ => Ok(()),
        };
        Self::new(inner, fail.clone()).and_after(fail)
    }

    /// Cuts a third of the answers.
    pub(crate) fn cutting(inner: Arc<dyn Objects>) -> Self {
        let dice = Mutex::new(Dice::new(2));
        let is_cut = move || dice.lock().unwrap().below(3) == 0;
        Self::new(inner, |_| Ok(())).and_after(move |call| match call {
            Call::Read | Call::ReadWhole if is_cut() => Err(outage()),
            _ => Ok(()),
        })
    }

    async fn ask<T>(
        &self,
        (call, key): (Call, &Key),
        work: impl Future<Output = Result<T, TierError>>,
    ) -> Result<T, TierError> {
        run(&self.before, (call, key)).await?;
        let done = work.await?;
        run(&self.after, (call, key)).await?;
        Ok(done)
    }
}

/// Runs a hook on a thread that may block.
async fn run(hook: &Arc<Hook>, (call, key): (Call, &Key)) -> Result<(), TierError> {
    let hook = Arc::clone(hook);
    let ran = tokio::task::spawn_blocking(move || hook(call)).await;
    ran.unwrap().map_err(failed_at(key))
}

fn failed_at(key: &Key) -> impl Fn(BucketError) -> TierError + use<> {
    let key = key.boxed();
    move |source| TierError::Bucket {
        key: key.clone(),
        source,
    }
}

/// Returns the error of a bucket that is out of order.
pub(crate) fn outage() -> BucketError {
    BucketError::Outage("the bucket did not answer in time".into())
}

/// Returns the error of a bucket that refuses a request. It is no outage.
pub(crate) fn refusal() -> BucketError {
    BucketError::Refusal("the bucket refuses the request".into())
}

#[async_trait]
impl Objects for Wrapped {
    async fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        let outcome = self
            .ask((Call::Read, key), self.inner.read_at(key, offset, into))
            .await;
        if outcome.is_err() {
            let half = into.len() / 2;
            into[half..].fill(0xee);
        }
        outcome
    }

    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        self.ask((Call::ReadWhole, key), self.inner.read_whole(key))
            .await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        self.ask((Call::Create, key), self.inner.create(key, bytes))
            .await
    }

    /// Leaves the files of the caller, as a bucket does.
    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let copy = |segment: NewSegment| {
            let file = segment.file.with_extension("copy");
            std::fs::copy(&segment.file, &file).unwrap();
            NewSegment { file, ..segment }
        };
        let at = Key::pointer(shelf);
        let copies: Vec<_> = segments.into_iter().map(copy).collect();
        let call = Call::CreateSegments;
        run(&self.before, (call, &at)).await?;
        if let Err(error) = run(&self.after, (call, &at)).await {
            let half = copies[..copies.len() / 2].to_vec();
            self.inner.create_segments(shelf, half).await?;
            return Err(error);
        }
        self.inner.create_segments(shelf, copies).await
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        self.ask((Call::Swap, key), self.inner.swap(key, expected, bytes))
            .await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        self.ask((Call::Stat, key), self.inner.stat(key)).await
    }

    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        let at = Key::pointer(shelf);
        self.ask((Call::List, &at), self.inner.list(shelf, part))
            .await
    }

    async fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        let at = Key::pointer(&anywhere());
        self.ask((Call::List, &at), self.inner.repositories()).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        let any = Key::pointer(&anywhere());
        let at = keys.first().unwrap_or(&any);
        self.ask((Call::Delete, at), self.inner.delete(keys)).await
    }

    async fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        let at = Key::segment(shelf, id);
        self.ask((Call::SetAside, &at), self.inner.set_aside(shelf, id))
            .await
    }
}

fn anywhere() -> Shelf {
    Shelf::of_snapshots(&RepoName::parse("example.com/anywhere").unwrap())
}

/// A counter of calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }

    pub(crate) fn current(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A gate at which calls wait while it is shut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn set_shut(&self, is_shut: bool) {
        *self.0.0.lock().unwrap() = is_shut;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let mut is_shut = self.0.0.lock().unwrap();
        while *is_shut {
            is_shut = self.0.1.wait(is_shut).unwrap();
        }
    }
}
