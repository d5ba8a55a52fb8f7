//! An archive as the mount reads it: from its end, by TOC, tables and chunks.

use std::collections::BTreeMap;

use cachewfs_format::{
    ArchiveKind, Content, Digest, EntryKind, Role, SeekTable, SegmentTable, Toc, TocLocation,
    decode_chunk,
};

use crate::support::test_daemon::*;

/// Reads all regular files of an archive as its TOC and chunk tables describe them.
fn read_files(archive: &[u8], toc: &Toc) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let at = |offset: u64| usize::try_from(offset).unwrap();
    for (offset, segment) in toc.segments_with_offsets() {
        let stored = &archive[at(offset)..at(offset + segment.stored_len)];
        let (chunks, frame) = stored.split_at(stored.len() - segment.table_len as usize);
        let table = SegmentTable::decode(segment.id, frame).unwrap();
        segment.check_table(&table).unwrap();
        let mut content = Vec::new();
        for (index, chunk) in table.chunks().iter().enumerate() {
            let range = table.stored_range(index).unwrap();
            content.extend(decode_chunk(chunk, &chunks[at(range.start)..at(range.end)]).unwrap());
        }
        segment.check_padding(0, &content).unwrap();
        assert_eq!(content.len() as u64, segment.content_len);
        if let Some(file) = &segment.file {
            let prefix = if segment.role == Role::LargeFile || toc.kind == ArchiveKind::Mirror {
                ""
            } else {
                ".git/"
            };
            let path = format!("{prefix}{}", file.path);
            files
                .entry(path)
                .or_default()
                .extend(&content[..at(file.size)]);
        }
        for entry in table.entries() {
            if let EntryKind::File(Content::Inline { offset }) = entry.kind {
                let bytes = content[at(offset)..at(offset + entry.size)].to_vec();
                files.insert(entry.path.to_string(), bytes);
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn toc_and_tables_lead_to_the_bytes_that_tar_extracts() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    for file in 0..600_u64 {
        write_file(
            &work.join(format!("d{}/f{file}", file % 7)),
            format!("{file}\n").repeat(20),
        );
    }
    write_file(&work.join("large"), noise(5, 6 << 20));
    commit_and_push(&work, "one");
    daemon.refresh().await;
    write_file(&work.join("d1/more"), "more\n");
    commit_and_push(&work, "two");
    daemon.refresh().await;

    for (name, kind) in [
        ("snapshot", ArchiveKind::Checkout),
        ("mirror", ArchiveKind::Mirror),
    ] {
        let url = format!("/git/{REPO}/{name}.tar.zst");
        let tail = daemon.get(&url, &[("range", "bytes=-65536")]).await;
        let etag = tail.headers()["etag"].to_str().unwrap().to_owned();
        let tail = tail.bytes().await.unwrap();
        let archive = daemon.get(&url, &[]).await.bytes().await.unwrap();
        let clone = daemon.extract(&format!("{name}.tar.zst")).await;

        let Ok(TocLocation::Found(place)) = Toc::locate(&tail, archive.len() as u64) else {
            panic!("the TOC is not in the last 64 KiB");
        };
        let toc_at = archive.len() - tail.len() + place.start;
        let (digest, toc) = Toc::decode(&tail[place]).unwrap();
        toc.check_offset(toc_at as u64).unwrap();
        assert_eq!(etag, format!("\"{digest}\""));
        assert_eq!(toc.kind, kind);
        let seek_len = usize::try_from(SeekTable::frame_len(&archive).unwrap()).unwrap();
        let seek_table = SeekTable::decode(&archive[archive.len() - seek_len..]).unwrap();
        let framed: u64 = seek_table
            .frames
            .iter()
            .map(|frame| u64::from(frame.stored_len))
            .sum();
        assert_eq!(framed + seek_len as u64, archive.len() as u64);
        let files = read_files(&archive, &toc);
        assert!(files.keys().any(|path| path.contains("/pack-")));
        assert_eq!(files.len() >= 600, kind == ArchiveKind::Checkout);
        if kind == ArchiveKind::Mirror {
            let refs = [&files["HEAD"][..], &files["packed-refs"]].concat();
            assert_eq!(toc.refs_digest, Digest::of(&refs));
        }
        for (path, bytes) in files {
            let extracted = std::fs::read(clone.join(&path)).unwrap();
            assert!(extracted == bytes, "{path} differs");
        }
    }
}
