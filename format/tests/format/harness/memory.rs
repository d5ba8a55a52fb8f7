//! Counts what is allocated, so that a test or a fuzz target can say how much an input is worth.

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe; this one only adds before it passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().saturating_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`, and panics if it allocates more than `max_bytes` in all, freed or not.
///
/// Memory that zstd's C code allocates for itself doesn't count.
pub(crate) fn with_memory_limit<T>(max_bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    let result = work();
    let used = ALLOCATED.get().saturating_sub(before);
    assert!(
        used <= max_bytes,
        "{used} bytes were allocated where {max_bytes} should do"
    );
    result
}
