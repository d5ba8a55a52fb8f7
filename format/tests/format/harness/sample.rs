//! Archives of a few files, such as the golden archive.

use cachewfs_format::{
    ChunkEncoding, Content, Digest, Entry, EntryKind, GitPath, ObjectId, Role, SegmentWriter,
    TocFile, encode_chunk, end_of_archive, member_header, padding_len,
};

use super::{Builder, FoundFile};

/// A file to put in an archive: path, content, and whether it gets a segment of its own.
pub(crate) type SampleFile = (Vec<u8>, Vec<u8>, bool);

/// Splits `content` into short chunks, so that there are many. They are raw and compressed in turn.
fn chunks(content: &[u8]) -> impl Iterator<Item = (&[u8], ChunkEncoding)> {
    let encodings = [ChunkEncoding::Raw, ChunkEncoding::Zstd(3)];
    content.chunks(700).zip(encodings.into_iter().cycle())
}

fn add_file(builder: &mut Builder, (path, content, is_own): &SampleFile) {
    let path = GitPath::parse(path).unwrap();
    let size = content.len() as u64;
    let padded = [content.as_slice(), &vec![0; padding_len(size)]].concat();
    let header_of = |kind: &EntryKind| member_header(&path, kind, 0o644, size, 7).unwrap();
    let entry = |kind: EntryKind| Entry {
        path: path.clone(),
        kind,
        mode: 0o644,
        size,
        mtime: 7,
        blob: Some(ObjectId::parse(&"ab".repeat(20)).unwrap()),
    };
    if !*is_own || content.is_empty() {
        let header = header_of(&EntryKind::File(Content::Inline { offset: 0 }));
        let offset = header.len() as u64;
        let kind = EntryKind::File(Content::Inline { offset });
        let content = [header, padded].concat();
        builder.segment(Role::WorkTree, chunks(&content), vec![entry(kind)], None);
        return;
    }
    // The header's segment comes first in the archive, and names the id of the data's segment. The
    // id doesn't depend on the position, so it can be computed beforehand.
    let mut writer = SegmentWriter::default();
    for (content, encoding) in chunks(&padded) {
        writer.push_chunk(encode_chunk(content, encoding).unwrap().0);
    }
    let (id, _) = writer.finish().unwrap();
    let kind = EntryKind::File(Content::Segment(id));
    let header = header_of(&kind);
    builder.segment(Role::WorkTree, chunks(&header), vec![entry(kind)], None);
    let (path, mtime) = (path.clone(), 7);
    let file = TocFile { path, size, mtime };
    let placed = builder.segment(Role::LargeFile, chunks(&padded), Vec::new(), Some(file));
    assert_eq!(placed, id);
}

/// Builds an archive of `files`. Returns it with the digest that names it.
pub(crate) fn archive_of(files: &[SampleFile]) -> (Vec<u8>, Digest) {
    let mut builder = Builder::default();
    for file in files {
        add_file(&mut builder, file);
    }
    builder.segment(Role::End, chunks(&end_of_archive()), Vec::new(), None);
    let commit = ObjectId::parse(&"12".repeat(20)).unwrap();
    builder.finish("host/org/repo", commit, Digest::of(b"refs"))
}

/// Returns the files of the golden archive, which must never change.
pub(crate) fn sample() -> Vec<SampleFile> {
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(5000).collect();
    let long_path = [&[b'd'; 120][..], b"/", &[b'l'; 130]].concat();
    vec![
        (b"a".to_vec(), b"small\n".to_vec(), false),
        (b"dir/large".to_vec(), bytes, true),
        (b"empty".to_vec(), Vec::new(), true),
        (b"not\xffutf8\n".to_vec(), vec![b'x'; 1500], false),
        (long_path, b"long path".to_vec(), false),
    ]
}

/// Returns the paths and contents of `files`, as a reader of their archive should return them.
pub(crate) fn paths_and_contents(files: Vec<SampleFile>) -> Vec<FoundFile> {
    files
        .into_iter()
        .map(|(path, content, _)| (path, content))
        .collect()
}
