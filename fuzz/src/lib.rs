//! Shared code of the fuzz targets: skippable frames, and a limit of memory.

#[path = "../../format/tests/format/harness/memory.rs"]
mod memory;

/// Runs `work`. Panics if its allocations add up to more than `max_bytes`.
///
/// The allocations of zstd's C code aren't counted. The limits that `fuzz/run` gives libFuzzer
/// apply to them.
pub fn with_memory_limit<T>(max_bytes: usize, work: impl FnOnce() -> T) -> T {
    memory::with_memory_limit(max_bytes, work)
}

/// Wraps `payload` in a zstd skippable frame, so that the fuzzer needn't guess a valid length.
///
/// # Panics
///
/// If the payload has 4 GiB or more. A fuzzer's inputs are shorter.
#[must_use]
pub fn skippable_frame(magic: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a fuzzer's input is short");
    [&magic.to_le_bytes()[..], &len.to_le_bytes(), payload].concat()
}
