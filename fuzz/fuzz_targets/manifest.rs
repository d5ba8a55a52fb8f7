//! Fuzzes manifests, pointers and deletions: an accepted value can be written and read again.
#![no_main]

use std::fmt::Debug;

use cachewfs_format::{Deletions, Manifest, Pointer, Result};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    check(json, Manifest::parse, Manifest::to_json);
    check(json, Pointer::parse, Pointer::to_json);
    check(json, Deletions::parse, Deletions::to_json);
});

fn check<T: PartialEq + Debug>(
    json: &[u8],
    parse: fn(&[u8]) -> Result<T>,
    to_json: fn(&T) -> Result<Vec<u8>>,
) {
    let parsed = cachewfs_fuzz::with_memory_limit(65536 + 64 * json.len(), || parse(json));

    let Ok(value) = parsed else { return };
    let written = to_json(&value).expect("a parsed value can be written");
    assert_eq!(parse(&written), Ok(value));
}
