//! [`Handles`]: the open files, or the open directories, by handle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Open files or directories of the kernel, by handle.
#[derive(Debug)]
pub(super) struct Handles<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }
}

impl<T: Clone> Handles<T> {
    /// Adds an open file or directory. Returns its handle.
    pub(super) fn open(&self, opened: T) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(handle, opened);
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<T> {
        self.open.lock().get(&handle).cloned()
    }

    /// Replaces the value of a handle, unless it is closed meanwhile.
    pub(super) fn replace(&self, handle: u64, opened: T) {
        if let Some(known) = self.open.lock().get_mut(&handle) {
            *known = opened;
        }
    }

    /// Removes a handle. Returns its value, or `None` if it isn't known.
    pub(super) fn close(&self, handle: u64) -> Option<T> {
        self.open.lock().remove(&handle)
    }

    /// Returns the next handle, and all values by handle.
    pub(super) fn all(&self) -> (u64, HashMap<u64, T>) {
        let open = self.open.lock();
        (self.next.load(Ordering::Relaxed), open.clone())
    }

    /// Takes over the handles of another process.
    pub(super) fn restore(&self, next: u64, opened: Vec<(u64, T)>) {
        self.next.store(next, Ordering::Relaxed);
        self.open.lock().extend(opened);
    }
}
