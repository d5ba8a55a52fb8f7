//! The golden archive: what version 1 means, for ever.

use std::io::Write as _;

use cachewfs_format::Digest;

use crate::harness::{archive_of, paths_and_contents, read, root, sample};

/// Written once, and never again. `CACHEWFS_WRITE_GOLDEN=1` writes it where there is none.
fn golden() -> (Vec<u8>, Digest) {
    let path = root().join("tests/data/checkout-v1.tar.zst");
    if std::env::var_os("CACHEWFS_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&archive_of(&sample()).0).unwrap();
    }
    let name = "3533650b34ea5189e0a9dd4c4a4be7c847868cbc6a6ebe6b980af881bb41fcf0";
    (std::fs::read(path).unwrap(), name.parse().unwrap())
}

#[test]
fn the_golden_archive_is_read_for_ever() {
    let (golden, name) = golden();

    assert_eq!(read(&golden, name).unwrap(), paths_and_contents(sample()));
}

/// Every byte has its reason in `docs/format.md`, but for how zstd compresses: should a new zstd
/// compress these few hundred bytes otherwise, let this test build the golden archive without it.
#[test]
fn the_golden_archive_is_written_today() {
    let (golden, name) = golden();

    let (archive, digest) = archive_of(&sample());

    assert!(archive == golden, "other bytes are written");
    assert_eq!(digest, name);
}
