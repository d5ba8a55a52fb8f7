//! The golden archive: it pins the bytes of version 1 of the format for ever.

use std::io::Write as _;

use cachewfs_format::Digest;

use crate::harness::{archive_of, paths_and_contents, read, root, sample};

/// Returns the golden archive and its name. It was written once, and must never change. With
/// `CACHEWFS_WRITE_GOLDEN=1`, a missing file is written.
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

/// `docs/format.md` determines every byte except the output of the zstd compressor. If a new zstd
/// compresses these few hundred bytes differently, change this test so that it doesn't depend on
/// that.
#[test]
fn the_golden_archive_is_written_today() {
    let (golden, name) = golden();

    let (archive, digest) = archive_of(&sample());

    assert!(
        archive == golden,
        "the written bytes differ from the golden archive"
    );
    assert_eq!(digest, name);
}
