//! Reads an archive as a mount does: the TOC from the tail, then segment tables, then chunks.

use std::collections::HashMap;

use cachewfs_format::{
    Content, Digest, EntryKind, Error, Result, SegmentTable, Toc, TocLocation, TocSegment,
    decode_chunk,
};

use super::to_usize;

/// A file that was read from an archive: its path and its content.
pub(crate) type FoundFile = (Vec<u8>, Vec<u8>);

const TRUNCATED: Error = Error::Truncated { section: "segment" };

/// Reads all files of the archive whose name (the digest of its TOC) is `name`.
pub(crate) fn read(archive: &[u8], name: Digest) -> Result<Vec<FoundFile>> {
    let toc = read_toc(archive, name)?;
    let mut contents = HashMap::new();
    let mut tables = Vec::new();
    for (offset, record) in toc.segments_with_offsets() {
        let end = offset.checked_add(record.stored_len).ok_or(TRUNCATED)?;
        let stored = archive
            .get(to_usize(offset)..to_usize(end))
            .ok_or(TRUNCATED)?;
        let (table, content) = read_segment(record, stored)?;
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
            let end = offset.checked_add(entry.size).ok_or(TRUNCATED)?;
            let content = contents.get(&id).ok_or(TRUNCATED)?;
            let bytes = content
                .get(to_usize(offset)..to_usize(end))
                .ok_or(TRUNCATED)?;
            files.push((entry.path.as_bytes().to_vec(), bytes.to_vec()));
        }
    }
    Ok(files)
}

fn read_toc(archive: &[u8], name: Digest) -> Result<Toc> {
    let mut tail_len = 64.min(archive.len());
    let range = loop {
        let start = archive.len() - tail_len;
        match Toc::locate(&archive[start..], archive.len() as u64)? {
            TocLocation::Found(range) => break start + range.start..start + range.end,
            TocLocation::NeedsTail(len) => {
                let is_possible = len > tail_len as u64 && len <= archive.len() as u64;
                assert!(is_possible, "a tail of {len} bytes is requested");
                tail_len = to_usize(len);
            }
        }
    };
    let toc_at = range.start as u64;
    let (digest, toc) = Toc::decode(&archive[range])?;
    if digest != name {
        return Err(Error::WrongDigest {
            section: "TOC",
            expected: name,
        });
    }
    toc.check_offset(toc_at)?;
    Ok(toc)
}

fn read_segment(record: &TocSegment, stored: &[u8]) -> Result<(SegmentTable, Vec<u8>)> {
    let table_at = stored.len() - to_usize(record.table_len.into());
    let table = SegmentTable::decode(record.id, &stored[table_at..])?;
    record.check_table(&table)?;
    let mut content = Vec::new();
    for (index, chunk) in table.chunks().iter().enumerate() {
        let range = table.stored_range(index).unwrap();
        let bytes = stored
            .get(to_usize(range.start)..to_usize(range.end))
            .ok_or(TRUNCATED)?;
        let decoded = decode_chunk(chunk, bytes)?;
        record.check_padding(content.len() as u64, &decoded)?;
        content.extend(decoded);
    }
    Ok((table, content))
}
