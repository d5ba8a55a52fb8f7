//! The gate: stops the threads of a session between two requests.
//!
//! fuser's threads wait in `read(2)`, and nothing can stop them there. But each comes through the
//! adapter with every request. While the gate is closed, a thread that has finished a request waits
//! here instead of reading the next:
//!
//! ```text
//! open:    read ─► adapter ─► reply ─► read …
//! closed:  read ─► adapter ─► reply ─► waits until the gate opens
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long the gate waits for a thread before it sends another request to fetch one.
const FETCH_INTERVAL: Duration = Duration::from_millis(10);
/// At most this many requests are sent to fetch the threads that wait in `read(2)`.
const MAX_FETCHES: usize = 64;

/// The change that the answer to a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The kernel learns of an inode or of a listing, and this process remembers that it did.
    Knowledge,
    /// Nothing.
    Nothing,
}

/// The gate of a session. It starts open.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_closed: AtomicBool,
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// The threads that wait at the gate.
    waiting_threads: usize,
    /// The calls that wait for something and change what the kernel knows.
    of_knowledge: usize,
    /// The other calls that wait for something.
    of_nothing: usize,
}

/// One request in a thread of the session. When it is dropped, the thread may have to wait.
pub(crate) struct Turn<'a>(&'a Gate);

/// A call that waits for something, outside the threads of the session.
#[derive(Debug)]
pub(crate) struct Unanswered {
    gate: Arc<Gate>,
    effect: Effect,
}

impl Gate {
    /// Begins a request in a thread of the session.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn(self)
    }

    /// Counts a call that is answered later, until the returned value is dropped.
    pub(crate) fn unanswered(self: &Arc<Self>, effect: Effect) -> Unanswered {
        *self.counts.lock().of(effect) += 1;
        Unanswered {
            gate: Arc::clone(self),
            effect,
        }
    }

    /// Closes the gate, and waits until all `threads` wait at it and no call is left that changes
    /// what the kernel knows. `fetch` must send a request to the session without waiting for its
    /// answer. Returns `false` and leaves the gate open if that takes longer than `patience`.
    ///
    /// Blocks.
    pub(crate) fn close(&self, threads: usize, patience: Duration, fetch: impl Fn()) -> bool {
        let deadline = Instant::now() + patience;
        // While the gate is open: other requests needn't wait for a lookup that waits for the
        // network.
        if !self.wait(deadline, |counts| counts.of_knowledge == 0) {
            return false;
        }
        self.is_closed.store(true, Ordering::SeqCst);
        let mut fetches = 0;
        loop {
            let counts = self.counts.lock();
            let all_wait = counts.waiting_threads == threads;
            if all_wait && counts.of_knowledge == 0 {
                return true;
            }
            drop(counts);
            if Instant::now() >= deadline {
                self.open();
                return false;
            }
            if !all_wait && fetches < MAX_FETCHES {
                fetch();
                fetches += 1;
            }
            let next = deadline.min(Instant::now() + FETCH_INTERVAL);
            self.wait(next, |counts| {
                counts.waiting_threads == threads && counts.of_knowledge == 0
            });
        }
    }

    /// Opens the gate. The threads read requests again.
    pub(crate) fn open(&self) {
        // With the lock, so that no thread misses it between its look and its wait.
        let counts = self.counts.lock();
        self.is_closed.store(false, Ordering::SeqCst);
        drop(counts);
        self.changed.notify_all();
    }

    /// Waits until every call that waited has been answered. Returns whether that came in time.
    ///
    /// Blocks.
    pub(crate) fn wait_until_answered(&self, patience: Duration) -> bool {
        self.wait(Instant::now() + patience, |counts| {
            counts.of_knowledge == 0 && counts.of_nothing == 0
        })
    }

    fn wait(&self, deadline: Instant, is_reached: impl Fn(&Counts) -> bool) -> bool {
        let mut counts = self.counts.lock();
        while !is_reached(&counts) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.changed.wait_for(&mut counts, left);
        }
        true
    }
}

impl Counts {
    fn of(&mut self, effect: Effect) -> &mut usize {
        match effect {
            Effect::Knowledge => &mut self.of_knowledge,
            Effect::Nothing => &mut self.of_nothing,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let gate = self.0;
        if !gate.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let mut counts = gate.counts.lock();
        counts.waiting_threads += 1;
        gate.changed.notify_all();
        while gate.is_closed.load(Ordering::SeqCst) {
            gate.changed.wait(&mut counts);
        }
        counts.waiting_threads -= 1;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        *self.gate.counts.lock().of(self.effect) -= 1;
        self.gate.changed.notify_all();
    }
}
