//! What the fuzz targets share: skippable frames around a payload, and a bound on memory.

#[path = "../../format/tests/format/harness/memory.rs"]
mod memory;

/// Runs `work`, and panics if it allocates more than `max_bytes` in all.
///
/// What zstd allocates in C is bounded by the limits that `fuzz/run` gives libFuzzer.
pub fn with_memory_limit<T>(max_bytes: usize, work: impl FnOnce() -> T) -> T {
    memory::with_memory_limit(max_bytes, work)
}

/// Wraps `payload` in a zstd skippable frame, so that a fuzzer needn't find out about its length.
///
/// # Panics
///
/// If the payload is longer than a fuzzer makes one.
#[must_use]
pub fn skippable_frame(magic: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a fuzzer's input is short");
    [&magic.to_le_bytes()[..], &len.to_le_bytes(), payload].concat()
}
