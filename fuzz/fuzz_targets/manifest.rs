//! Manifests and pointers: what is read is written so that it is read again.
#![no_main]

use std::fmt::Debug;

use cachewfs_format::{Manifest, Pointer};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|json: &[u8]| {
    check::<Manifest>(json);
    check::<Pointer>(json);
});

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    let parsed = cachewfs_fuzz::within(65536 + 64 * json.len(), || {
        serde_json::from_slice::<T>(json)
    });

    let Ok(value) = parsed else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(
        serde_json::from_slice::<T>(&written).expect("what was written can be read"),
        value
    );
}
