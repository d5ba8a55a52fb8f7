//! Manifests and pointers that are refused: other versions, damage, lengths that don't add up.

use cachewfs_format::{ArchiveKind, Error, Manifest, Pointer};

use crate::harness::root;

/// Returns the JSON of the fuzz seed `name`. The tests in `fuzz_seeds.rs` pin its bytes.
fn seed(name: &str) -> String {
    let seeds = root().join("fuzz/seeds/manifest");
    std::fs::read_to_string(seeds.join(name)).unwrap()
}

fn manifest() -> Manifest {
    Manifest::parse(seed("manifest.json").as_bytes()).unwrap()
}

#[test]
fn other_versions_are_refused_with_their_number() {
    let later = |json: String| json.replace("\"version\":1,", "\"version\":2,");

    let manifest = Manifest::parse(later(seed("manifest.json")).as_bytes());
    let pointer = Pointer::parse(later(seed("pointer.json")).as_bytes());
    // A later version may have other fields; only `version` is sure to be there.
    let unknown = Pointer::parse(br#"{"version":4000000000,"elsewhere":true}"#);

    let error = manifest.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the manifest has version 2, which this program can't read"
    );
    assert!(matches!(
        pointer,
        Err(Error::UnknownVersion { version: 2, .. })
    ));
    assert!(matches!(
        unknown,
        Err(Error::UnknownVersion {
            version: 4_000_000_000,
            ..
        })
    ));
}

#[test]
fn another_version_is_not_written() {
    let mut manifest = manifest();
    manifest.version = 2;

    assert!(matches!(
        manifest.to_json(),
        Err(Error::UnknownVersion { .. })
    ));
}

#[test]
fn every_truncation_is_an_error() {
    let (manifest, pointer) = (seed("manifest.json"), seed("pointer.json"));

    for len in 0..manifest.len() {
        assert!(
            Manifest::parse(&manifest.as_bytes()[..len]).is_err(),
            "cut to {len}"
        );
    }
    for len in 0..pointer.len() {
        assert!(
            Pointer::parse(&pointer.as_bytes()[..len]).is_err(),
            "cut to {len}"
        );
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_is_written_again() {
    let json = seed("manifest.json").into_bytes();

    for at in 0..json.len() {
        let mut damaged = json.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Ok(manifest) = Manifest::parse(&damaged) {
            assert_eq!(Manifest::parse(&manifest.to_json().unwrap()), Ok(manifest));
        }
    }
}

/// Changes a valid manifest. Returns the error with which it is refused, by both writer and reader.
fn refusal(change: impl FnOnce(&mut Manifest)) -> Error {
    let good = manifest();
    let mut changed = good.clone();
    change(&mut changed);
    assert_ne!(changed, good);
    let refused = changed.to_json().unwrap_err();
    let json = serde_json::to_vec(&changed).unwrap();
    assert_eq!(Manifest::parse(&json), Err(refused.clone()));
    refused
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let layout = |manifest: &mut Manifest, len| {
        let layout = manifest.archives.get_mut(&ArchiveKind::Checkout).unwrap();
        layout.segments[0].len = len;
    };
    refusal(|manifest| layout(manifest, 1));
    refusal(|manifest| layout(manifest, u64::MAX));
    refusal(|manifest| manifest.packs[0].pack.size = 1025);
    refusal(|manifest| manifest.packs[0].index.table_len += 1);
    refusal(|manifest| manifest.packs[1].reverse_index.content_len += 1);
    refusal(|manifest| manifest.commit_graphs[0].frames.clear());
    refusal(|manifest| manifest.runs[0].index_part.segment.len -= 1);
    refusal(|manifest| manifest.runs[0].large_file.as_mut().unwrap().frames[0].2 = 2);
}

#[test]
fn more_chunks_than_an_archive_can_have_are_refused() {
    // A publisher would write this record 2^32 - 1 times into a seek table.
    let error = refusal(|manifest| {
        let file = &mut manifest.packs[0].pack;
        file.frames = vec![(1, 1, u32::MAX)];
        file.segment.len = u64::from(u32::MAX) + u64::from(file.table_len);
        file.content_len = u64::from(u32::MAX);
    });

    assert!(error.to_string().contains("more chunks"), "{error}");
}

#[test]
fn the_objects_of_an_lfs_manifest_are_checked() {
    let good = Manifest::parse(seed("lfs-manifest.json").as_bytes()).unwrap();
    let is_refused = |change: fn(&mut Manifest)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.to_json().is_err()
    };

    assert!(is_refused(|it| it.lfs_objects[0].data.name.clear()));
    assert!(is_refused(|it| it.lfs_objects[0].header.name = "..".into()));
    assert!(is_refused(|it| it.lfs_objects[0].data.size = 1025));
    assert!(is_refused(|it| it.lfs_objects[0].header.table_len += 1));
}

#[test]
fn names_that_are_paths_are_refused() {
    for name in ["", "..", "../../x", "a/b", "a\0"] {
        refusal(|manifest| name.clone_into(&mut manifest.packs[0].pack.name));
    }
}
