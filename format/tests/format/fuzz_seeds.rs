//! Pins the seeds of the fuzz targets: parts of the golden archive, manifests, pointers, deletions,
//! names and a part of an index.
//!
//! With `CACHEWFS_WRITE_GOLDEN=1`, missing seeds are written.

use std::collections::BTreeMap;
use std::io::Write as _;

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, ArchiveSummary, Deletions, Digest, GitPath, Manifest, ObjectId,
    PackKind, Pointer, PublishedFile, PublishedLfsObject, PublishedPack, RepoName, ReusableRun,
    Role, SeekTable, SegmentId, SegmentRef, SegmentTable, SnapshotId, Toc, TocFile, TocLocation,
    TocSegment, index_part_entries,
};

use crate::harness::{root, to_usize};

/// Compares a committed seed with the expected bytes.
fn check(target: &str, name: &str, expected: &[u8]) {
    let path = root().join("fuzz/seeds").join(target).join(name);
    if std::env::var_os("CACHEWFS_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(expected).unwrap();
    }
    let found = std::fs::read(&path).unwrap();
    assert!(
        found == expected,
        "{} differs from the expected bytes",
        path.display()
    );
}

/// Returns the payload of a skippable frame. The fuzz targets add the magic number and the length.
fn payload(frame: &[u8]) -> &[u8] {
    &frame[8..]
}

#[test]
fn seeds_are_parts_of_the_golden_archive() {
    let archive = std::fs::read(root().join("tests/data/checkout-v1.tar.zst")).unwrap();
    let TocLocation::Found(range) = Toc::locate(&archive, archive.len() as u64).unwrap() else {
        panic!("the tail is the whole archive, and has the TOC");
    };
    let toc_frame = &archive[range.clone()];
    check("toc", "archive-tail", &archive[range.start..]);
    // The fuzz target adds the trailer.
    check("toc", "golden", &payload(toc_frame)[..toc_frame.len() - 16]);
    SeekTable::decode(&archive[range.end..]).unwrap();
    check("seek_table", "golden", payload(&archive[range.end..]));

    for (index, (offset, record)) in Toc::decode(toc_frame)
        .unwrap()
        .1
        .segments_with_offsets()
        .enumerate()
    {
        let stored = &archive[to_usize(offset)..to_usize(offset + record.stored_len)];
        let frame = &stored[stored.len() - to_usize(record.table_len.into())..];
        let table = SegmentTable::decode(record.id, frame).unwrap();
        check("segment_table", &format!("golden-{index}"), payload(frame));
        for (chunk, number) in table.chunks().iter().zip(0..2) {
            let range = table.stored_range(number).unwrap();
            let bytes = &stored[to_usize(range.start)..to_usize(range.end)];
            let seed = [&chunk.content_len.to_le_bytes()[..], bytes].concat();
            check("chunk", &format!("golden-{index}-{number}"), &seed);
        }
    }
}

#[test]
fn the_seed_of_an_index_is_accepted() {
    let entry = |path: &str, mode: u32| {
        let mut entry = vec![0; 40];
        entry[24..28].copy_from_slice(&mode.to_be_bytes());
        entry.extend([0x5A; 20]);
        entry.extend(u16::try_from(path.len()).unwrap().to_be_bytes());
        entry.extend_from_slice(path.as_bytes());
        entry.resize((entry.len() + 8) / 8 * 8, 0);
        entry
    };
    let part = [
        entry("a/b", 0o100_644),
        entry("a/link", 0o120_000),
        entry("b", 0o160_000),
    ];

    let part = part.concat();

    assert_eq!(index_part_entries(&part, 20).unwrap().len(), 3);
    check("index", "three", &part);
}

#[test]
fn seeds_of_names_are_accepted() {
    let commit = "12".repeat(20);
    let later = format!("{commit}-{}", "34".repeat(8));
    for (name, text) in [
        ("repo", "github.com/org/repo.git"),
        ("port", "localhost:3000/~a/b+c_d"),
    ] {
        RepoName::parse(text).unwrap();
        check("names", name, text.as_bytes());
    }
    SnapshotId::parse(&later).unwrap();
    check("names", "snapshot", later.as_bytes());
    check("names", "digest", Digest::of(b"").to_string().as_bytes());
}

fn file(name: &str) -> PublishedFile {
    let id = SegmentId(Digest::of(name.as_bytes()));
    PublishedFile {
        name: name.to_owned(),
        size: 1000,
        segment: SegmentRef { id, len: 700 },
        table_len: 66,
        content_len: 1024,
        frames: vec![(634, 1024, 1)],
    }
}

fn manifest() -> Manifest {
    let commit = ObjectId::parse(&"12".repeat(20)).unwrap();
    let (pack, index, reverse_index) = (file("p.pack"), file("p.idx"), file("p.rev"));
    let layout = ArchiveLayout {
        toc: Digest::of(b"toc"),
        size: 700 + 700 + 900,
        segments: vec![pack.segment, index.segment],
        tail: SegmentRef {
            id: SegmentId(Digest::of(b"tail")),
            len: 900,
        },
    };
    let kinds = [
        PackKind::Tip,
        PackKind::Increment,
        PackKind::Commits,
        PackKind::Trees,
        PackKind::History,
    ];
    let pack = |kind| PublishedPack {
        kind,
        pack: pack.clone(),
        index: index.clone(),
        reverse_index: reverse_index.clone(),
    };
    Manifest {
        version: Manifest::VERSION,
        repo: RepoName::parse("host/org/repo").unwrap(),
        snapshot: SnapshotId::later(commit, &Digest::of(b"refs")),
        refs_digest: Digest::of(b"refs"),
        created_at: 1_700_000_000,
        archives: BTreeMap::from([
            (ArchiveKind::Mirror, layout.clone()),
            (ArchiveKind::Checkout, layout),
        ]),
        packs: kinds.into_iter().map(pack).collect(),
        commit_graphs: vec![file("graph")],
        tips: vec![commit],
        runs: vec![ReusableRun {
            key: Digest::of(b"run"),
            files: 3,
            work_tree: file(""),
            large_file: Some(file("large")),
            index_part: file(""),
        }],
        notice: None,
        lfs_objects: Vec::new(),
    }
}

/// Returns the manifest of an LFS archive.
fn lfs_manifest() -> Manifest {
    let manifest = manifest();
    let layout = manifest.archives[&ArchiveKind::Checkout].clone();
    let oid = "98".repeat(32);
    Manifest {
        snapshot: SnapshotId::first(manifest.snapshot.commit()),
        refs_digest: Digest::of(b""),
        archives: BTreeMap::from([(ArchiveKind::Lfs, layout)]),
        packs: Vec::new(),
        commit_graphs: Vec::new(),
        tips: Vec::new(),
        runs: Vec::new(),
        notice: None,
        lfs_objects: vec![PublishedLfsObject {
            header: file(&oid),
            data: file(&oid),
        }],
        ..manifest
    }
}

#[test]
fn the_seed_of_an_lfs_toc_keeps_its_form() {
    let oid = "98".repeat(32);
    let data = file(&oid);
    let segment = |role, file| TocSegment {
        id: data.segment.id,
        role,
        stored_len: data.segment.len,
        table_len: data.table_len,
        content_len: data.content_len,
        file,
    };
    let path = format!("lfs/objects/98/98/{oid}");
    let path = GitPath::parse(path.as_bytes()).unwrap();
    let (size, mtime) = (data.size, 7);
    let toc = Toc {
        kind: ArchiveKind::Lfs,
        repo: RepoName::parse("host/org/repo").unwrap(),
        commit: ObjectId::parse(&"12".repeat(20)).unwrap(),
        refs_digest: Digest::of(b""),
        hot_segments: 0,
        segments: vec![
            segment(Role::Header, None),
            segment(Role::LfsObject, Some(TocFile { path, size, mtime })),
        ],
    };

    let (digest, frame) = toc.encode().unwrap();

    check("toc", "lfs", &payload(&frame)[..frame.len() - 16]);
    assert_eq!(Toc::decode(&frame), Ok((digest, toc)));
}

fn pointer() -> Pointer {
    let manifest = manifest();
    let summary = |layout: &ArchiveLayout| ArchiveSummary {
        toc: layout.toc,
        size: layout.size,
    };
    Pointer {
        version: Pointer::VERSION,
        snapshot: manifest.snapshot,
        manifest: Digest::of(b"manifest"),
        archives: manifest
            .archives
            .iter()
            .map(|(kind, layout)| (*kind, summary(layout)))
            .collect(),
        published_at: 1_700_000_001,
        replaced: Vec::new(),
        notice: None,
        fence: 0,
    }
}

#[test]
fn manifest_and_pointer_keep_their_form() {
    check("manifest", "manifest.json", &manifest().to_json().unwrap());
    let lfs = lfs_manifest().to_json().unwrap();
    check("manifest", "lfs-manifest.json", &lfs);
    let first = pointer();
    check("manifest", "pointer.json", &first.to_json().unwrap());
    let snapshot = SnapshotId::later(first.snapshot.commit(), &Digest::of(b"later"));
    let later = Pointer {
        snapshot,
        replaced: first.replaced_by(snapshot, 1_700_000_002),
        ..first
    };
    check("manifest", "pointer-later.json", &later.to_json().unwrap());
    let fenced = Pointer { fence: 7, ..later };
    check(
        "manifest",
        "pointer-fenced.json",
        &fenced.to_json().unwrap(),
    );
    let notice = Some("There is no work tree".to_owned());
    let noticed = Pointer {
        notice: notice.clone(),
        ..fenced
    };
    check(
        "manifest",
        "pointer-noticed.json",
        &noticed.to_json().unwrap(),
    );
    let noticed = Manifest {
        notice,
        ..manifest()
    };
    check(
        "manifest",
        "manifest-noticed.json",
        &noticed.to_json().unwrap(),
    );
    let mut deletions = Deletions::none();
    deletions.snapshots.insert(snapshot);
    deletions.segments.insert(SegmentId(Digest::of(b"old")));
    deletions.mark_used(snapshot);
    check("manifest", "deletions.json", &deletions.to_json().unwrap());
}
