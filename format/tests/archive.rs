//! Whole archives: what is written is read again, damage is noticed, other programs read them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't be set up has to fail"
)]

use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};

use cachewfs_format::{
    ArchiveKind, ChunkEncoding, Content, Digest, Entry, EntryKind, Error, FrameSize, GitPath,
    ObjectId, RepoName, Role, SeekTable, SegmentId, SegmentTable, SegmentWriter, Toc, TocFile,
    TocPlace, TocSegment, decode_chunk, encode_chunk, end_of_archive, member_header, padding_len,
};
use proptest::prelude::*;

/// A file of an archive: path and content.
type Found = (Vec<u8>, Vec<u8>);
/// A file to put in an archive: path, content, and whether it gets a segment of its own.
type File = (Vec<u8>, Vec<u8>, bool);

#[derive(Default)]
struct Writer {
    archive: Vec<u8>,
    frames: Vec<FrameSize>,
    segments: Vec<TocSegment>,
}

impl Writer {
    fn segment(
        &mut self,
        role: Role,
        content: &[u8],
        entries: Vec<Entry>,
        file: Option<TocFile>,
    ) -> SegmentId {
        let (mut writer, start) = (SegmentWriter::default(), self.archive.len());
        for (index, piece) in content.chunks(700).enumerate() {
            let encoding = if index % 2 == 0 {
                ChunkEncoding::Raw
            } else {
                ChunkEncoding::Zstd(3)
            };
            let (chunk, stored) = encode_chunk(piece, encoding).unwrap();
            let (stored_len, content_len) = (chunk.stored_len, chunk.content_len);
            self.frames.push(FrameSize {
                stored_len,
                content_len,
            });
            self.archive.extend(stored);
            writer.push_chunk(chunk);
        }
        for entry in entries {
            writer.push_entry(entry);
        }
        let (id, table) = writer.finish().unwrap();
        let table_len = u32::try_from(table.len()).unwrap();
        self.frames.push(FrameSize {
            stored_len: table_len,
            content_len: 0,
        });
        self.archive.extend(table);
        let (stored_len, content_len) = ((self.archive.len() - start) as u64, content.len() as u64);
        self.segments.push(TocSegment {
            id,
            role,
            stored_len,
            table_len,
            content_len,
            file,
        });
        id
    }

    fn file(&mut self, (path, content, is_own): &File) {
        let path = GitPath::parse(path).unwrap();
        let size = content.len() as u64;
        let padded = [content.as_slice(), &vec![0; padding_len(size)]].concat();
        let mut writer = SegmentWriter::default();
        let entry = |kind: EntryKind| Entry {
            path: path.clone(),
            kind,
            mode: 0o644,
            size,
            mtime: 7,
            blob: Some(ObjectId::parse(&"ab".repeat(20)).unwrap()),
        };
        if *is_own && !content.is_empty() {
            // The id is known before the data is placed: it doesn't depend on the place.
            for (index, piece) in padded.chunks(700).enumerate() {
                let encoding = if index % 2 == 0 {
                    ChunkEncoding::Raw
                } else {
                    ChunkEncoding::Zstd(3)
                };
                writer.push_chunk(encode_chunk(piece, encoding).unwrap().0);
            }
            let (id, _) = writer.finish().unwrap();
            let kind = EntryKind::File(Content::Segment(id));
            let header = member_header(&path, &kind, 0o644, size, 7).unwrap();
            self.segment(Role::WorkTree, &header, vec![entry(kind)], None);
            let file = TocFile {
                path: path.clone(),
                size,
                mtime: 7,
            };
            assert_eq!(
                self.segment(Role::LargeFile, &padded, Vec::new(), Some(file)),
                id
            );
        } else {
            let kind = EntryKind::File(Content::Inline { offset: 0 });
            let header = member_header(&path, &kind, 0o644, size, 7).unwrap();
            let offset = header.len() as u64;
            let kind = EntryKind::File(Content::Inline { offset });
            let content = [header, padded].concat();
            self.segment(Role::WorkTree, &content, vec![entry(kind)], None);
        }
    }
}

fn archive_of(files: &[File]) -> (Vec<u8>, Digest) {
    let mut writer = Writer::default();
    for file in files {
        writer.file(file);
    }
    writer.segment(Role::End, &end_of_archive(), Vec::new(), None);
    let toc = Toc {
        kind: ArchiveKind::Checkout,
        repo: RepoName::parse("host/org/repo").unwrap(),
        commit: ObjectId::parse(&"12".repeat(20)).unwrap(),
        refs_digest: Digest::of(b"refs"),
        hot_segments: 1,
        segments: writer.segments,
    };
    let (digest, frame) = toc.encode().unwrap();
    let stored_len = u32::try_from(frame.len()).unwrap();
    writer.frames.push(FrameSize {
        stored_len,
        content_len: 0,
    });
    writer.archive.extend(frame);
    writer.archive.extend(
        SeekTable {
            frames: writer.frames,
        }
        .encode()
        .unwrap(),
    );
    (writer.archive, digest)
}

/// Reads all files as a mount does: TOC from the tail, tables, chunks.
fn read(archive: &[u8], name: Digest) -> Result<Vec<Found>, Error> {
    let mut tail_len = 64.min(archive.len());
    let place = loop {
        let tail = &archive[archive.len() - tail_len..];
        match Toc::locate(tail, archive.len() as u64)? {
            TocPlace::Found(place) => {
                let start = archive.len() - tail_len;
                break start + place.start..start + place.end;
            }
            TocPlace::NeedsTail(len) => {
                let len = usize::try_from(len).unwrap();
                assert!(
                    len > tail_len && len <= archive.len(),
                    "asks for {len} bytes"
                );
                tail_len = len;
            }
        }
    };
    let toc_at = place.start as u64;
    let (digest, toc) = Toc::decode(&archive[place])?;
    toc.check_place(toc_at)?;
    if digest != name {
        return Err(Error::WrongDigest {
            section: "TOC",
            expected: name,
        });
    }
    let truncated = Error::Truncated { section: "segment" };
    let mut contents = std::collections::HashMap::new();
    let mut tables = Vec::new();
    for (offset, record) in toc.placed_segments() {
        let at = |place: u64| usize::try_from(place).unwrap();
        let end = at(offset + record.stored_len);
        let stored = archive.get(at(offset)..end).ok_or(truncated.clone())?;
        let table_at = stored.len() - usize::try_from(record.table_len).unwrap();
        let table = SegmentTable::decode(record.id, &stored[table_at..])?;
        record.check_table(&table)?;
        let mut content = Vec::new();
        for (index, chunk) in table.chunks().iter().enumerate() {
            let range = table.stored_range(index).unwrap();
            let bytes = stored
                .get(at(range.start)..at(range.end))
                .ok_or(truncated.clone())?;
            content.extend(decode_chunk(chunk, bytes)?);
        }
        contents.insert(record.id, content);
        tables.push((record.id, table));
    }
    let mut files = Vec::new();
    for (id, table) in &tables {
        for entry in table.entries() {
            let EntryKind::File(content) = entry.kind else {
                continue;
            };
            let (id, offset) = match content {
                Content::Inline { offset } => (*id, offset),
                Content::Segment(id) => (id, 0),
            };
            let range =
                usize::try_from(offset).unwrap()..usize::try_from(offset + entry.size).unwrap();
            let bytes = contents[&id][range].to_vec();
            files.push((entry.path.as_bytes().to_vec(), bytes));
        }
    }
    Ok(files)
}

fn sample() -> Vec<File> {
    vec![
        (b"a".to_vec(), b"small\n".to_vec(), false),
        (
            b"dir/large".to_vec(),
            (0..=255_u8).cycle().take(5000).collect(),
            true,
        ),
        (b"empty".to_vec(), Vec::new(), true),
        (b"not\xffutf8\n".to_vec(), vec![b'x'; 1500], false),
        (
            [&[b'd'; 120][..], b"/", &[b'l'; 130]].concat(),
            b"long path".to_vec(),
            false,
        ),
    ]
}

fn without_places(files: Vec<File>) -> Vec<Found> {
    files
        .into_iter()
        .map(|(path, content, _)| (path, content))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        files in prop::collection::btree_map(
            "[a-z]{1,9}(/[a-z]{1,9}){0,3}",
            (prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()),
            0..8,
        )
    ) {
        let files: Vec<File> = files
            .into_iter()
            .map(|(path, (content, is_own))| (path.into_bytes(), content, is_own))
            .collect();
        let (archive, name) = archive_of(&files);

        prop_assert_eq!(read(&archive, name).unwrap(), without_places(files));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(Toc::locate(&bytes, bytes.len() as u64));
        drop(Toc::decode(&bytes));
        drop(SegmentTable::decode(SegmentId(Digest::of(&bytes)), &bytes));
        // Past the frame and the digest, too.
        let len = u32::try_from(bytes.len() + 10).unwrap();
        for (magic, header) in [(0x184D_2A5A_u32, b"CWFSSEG\0\x01\0"), (0x184D_2A5B, b"CWFSTOC\0\x01\0")] {
            let payload = [&header[..], &bytes].concat();
            let frame = [&magic.to_le_bytes()[..], &len.to_le_bytes(), &payload].concat();
            drop(Toc::decode(&frame));
            drop(SegmentTable::decode(SegmentId(Digest::of(&payload)), &frame));
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let (archive, name) = archive_of(&sample());
    let expected = without_places(sample());

    let mut unnoticed = 0;
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        match read(&damaged, name) {
            Err(_) => {}
            // The seek table's records, which we don't read.
            Ok(files) => {
                assert_eq!(files, expected, "bit flipped at {at} of {}", archive.len());
                unnoticed += 1;
            }
        }
    }
    assert!(
        unnoticed < archive.len() / 10,
        "{unnoticed} of {}",
        archive.len()
    );
}

#[test]
fn every_truncation_is_an_error() {
    let (archive, name) = archive_of(&sample());

    for len in 0..archive.len() {
        assert!(
            read(&archive[..len], name).is_err(),
            "cut to {len} of {}",
            archive.len()
        );
    }
}

/// Runs a program with `input`; gives what it printed.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} failed");
    output.stdout
}

#[test]
fn stock_zstd_and_tar_read_an_archive() {
    let (archive, _) = archive_of(&sample());

    pipe("zstd", &["--test", "--quiet"], &archive);
    let stream = pipe("zstd", &["-dc"], &archive);
    for (path, content) in without_places(sample()) {
        let path = String::from_utf8(path);
        // Names that are not UTF-8 are in the listing below.
        if let Ok(path) = path {
            assert_eq!(
                pipe("tar", &["-xOf", "-", &path], &stream),
                content,
                "{path}"
            );
        }
    }
    let listing = pipe("tar", &["-tf", "-", "--quoting-style=literal"], &stream);
    let names: Vec<u8> = without_places(sample())
        .into_iter()
        .flat_map(|(path, _)| [path, b"\n".to_vec()].concat())
        .collect();
    assert_eq!(listing, names);
}

#[test]
fn another_seekable_reader_seeks_in_an_archive() {
    let (archive, _) = archive_of(&sample());
    let stream = pipe("zstd", &["-dc"], &archive);
    let mut decoder = zeekstd::Decoder::new(std::io::Cursor::new(archive)).unwrap();

    for offset in [0, 1, 699, 700, 701, 4096, 9000, stream.len() - 3] {
        decoder
            .seek(std::io::SeekFrom::Start(offset as u64))
            .unwrap();
        let mut read = Vec::new();
        decoder.by_ref().take(2000).read_to_end(&mut read).unwrap();

        let end = stream.len().min(offset + 2000);
        assert!(read == stream[offset..end], "wrong bytes at {offset}");
    }
}

/// Written once, and never again: what version 1 means. `CACHEWFS_WRITE_GOLDEN=1` writes it where
/// there is none.
#[test]
fn the_golden_archive_is_read_for_ever() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/checkout-v1.tar.zst");
    if std::env::var_os("CACHEWFS_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path)
            .unwrap()
            .write_all(&archive_of(&sample()).0)
            .unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    let name = "3533650b34ea5189e0a9dd4c4a4be7c847868cbc6a6ebe6b980af881bb41fcf0"
        .parse()
        .unwrap();

    assert_eq!(read(&golden, name).unwrap(), without_places(sample()));
}
