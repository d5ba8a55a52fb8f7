//! A global allocator that counts bytes, so that a test or a fuzz target can limit them. The fuzz
//! targets use this file too.

#![expect(
    unsafe_code,
    reason = "an allocator needs unsafe code; this one counts, and calls the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().saturating_add(layout.size()));
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`. Panics if its allocations add up to more than `max_bytes`, freed or not.
///
/// Memory that zstd's C code allocates for itself isn't counted.
pub(crate) fn with_memory_limit<T>(max_bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    let result = work();
    let used = ALLOCATED.get().saturating_sub(before);
    assert!(
        used <= max_bytes,
        "{used} bytes were allocated, the limit is {max_bytes}"
    );
    result
}
