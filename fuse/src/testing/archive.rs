//! Small archives, built like the daemon's.

use cachewfs_format::{
    ChunkEncoding, Content, Digest, Entry, EntryKind, GitPath, ObjectId, PackKind, Role,
    SnapshotId, TocFile,
};

#[path = "../../../format/tests/format/harness/builder.rs"]
mod builder;

/// The name of the repository in all test archives.
pub(crate) const REPO: &str = "host/org/repo";
/// The id of the commit in all test archives.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A checkout archive.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: String,
    pub(crate) snapshot: SnapshotId,
}

/// A builder of test archives, over the one that the tests of the format use.
#[derive(Debug, Default)]
struct ArchiveBuilder(builder::Builder);

impl ArchiveBuilder {
    fn segment(&mut self, role: Role, content: &[u8], entries: Vec<Entry>, file: Option<TocFile>) {
        let chunks = content
            .chunks(64 << 10)
            .map(|chunk| (chunk, ChunkEncoding::Zstd(1)));
        self.0.segment(role, chunks, entries, file);
    }

    /// Adds a segment of small files, one after the other. It has no tar headers between them,
    /// because the mount doesn't read those.
    fn members(&mut self, role: Role, members: &[(&str, u32, &[u8])]) {
        let mut content = Vec::new();
        let mut entries = Vec::new();
        for (path, mode, bytes) in members {
            let kind = if *mode == 0o120_000 {
                EntryKind::Symlink((*bytes).into())
            } else {
                EntryKind::File(Content::Inline {
                    offset: content.len() as u64,
                })
            };
            let is_file = matches!(kind, EntryKind::File(_));
            entries.push(Entry {
                path: GitPath::parse(path.as_bytes()).unwrap(),
                kind,
                mode: mode & 0o777,
                size: if is_file { bytes.len() as u64 } else { 0 },
                mtime: 1,
                blob: None,
            });
            if is_file {
                content.extend_from_slice(bytes);
            }
        }
        content.push(0);
        self.segment(role, &content, entries, None);
    }

    /// Adds a segment that is one file.
    fn file(&mut self, role: Role, path: &str, bytes: &[u8]) {
        let path = GitPath::parse(path.as_bytes()).unwrap();
        let file = TocFile {
            path,
            size: bytes.len() as u64,
            mtime: 7,
        };
        self.segment(role, bytes, Vec::new(), Some(file));
    }

    fn finish(self, refs: &[u8]) -> Archive {
        let commit = ObjectId::parse(COMMIT).unwrap();
        let refs_digest = Digest::of(refs);
        let (bytes, digest) = self.0.finish(REPO, commit, refs_digest);
        Archive {
            bytes,
            etag: format!("\"{digest}\""),
            snapshot: SnapshotId::later(commit, &refs_digest),
        }
    }
}

/// Returns the index entry of a file, with its padding.
fn index_entry(path: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut entry = vec![0; 62];
    entry[24..28].copy_from_slice(&mode.to_be_bytes());
    entry[36..40].copy_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
    entry[40..60].copy_from_slice(&Digest::of(content).as_bytes()[..20]);
    entry[60..62].copy_from_slice(&u16::try_from(path.len()).unwrap().to_be_bytes());
    entry.extend_from_slice(path.as_bytes());
    entry.resize(entry.len() / 8 * 8 + 8, 0);
    entry
}

/// Builds an archive with one branch, one pack with its index, and a work tree of `files`. Each
/// file is (path, git mode, content). The files are sorted by path, and two files form a run.
pub(crate) fn archive(branch: &str, pack: &[u8], files: &[(&str, u32, &[u8])]) -> Archive {
    archive_with_index(branch, pack, files, &index_parts(files))
}

/// Returns the index parts of [`archive`], one for each run of `files`.
pub(crate) fn index_parts(files: &[(&str, u32, &[u8])]) -> Vec<Vec<u8>> {
    let entry = |(path, mode, bytes): &(&str, u32, &[u8])| index_entry(path, *mode, bytes);
    files
        .chunks(2)
        .map(|run| run.iter().flat_map(entry).collect())
        .collect()
}

/// Builds the archive of [`archive`], but with these index parts.
pub(crate) fn archive_with_index(
    branch: &str,
    pack: &[u8],
    files: &[(&str, u32, &[u8])],
    index_parts: &[Vec<u8>],
) -> Archive {
    let refs = format!("{COMMIT} refs/remotes/origin/{branch}\n");
    let head = format!("ref: refs/heads/{branch}\n");
    let config =
        b"[remote \"origin\"]\n\turl = https://host/org/repo\n[core]\n\thooksPath = /tmp\n";
    let mut builder = ArchiveBuilder::default();
    let refs_members: [(&str, u32, &[u8]); 4] = [
        (".git/HEAD", 0o644, head.as_bytes()),
        (".git/config", 0o644, config),
        (".git/hooks/post-checkout", 0o755, b"#!/bin/sh\n"),
        (".git/packed-refs", 0o644, refs.as_bytes()),
    ];
    builder.members(Role::Refs, &refs_members);
    let name = format!(
        "objects/pack/pack-{}",
        Digest::of(pack).to_string().split_at(40).0
    );
    builder.file(
        Role::PackIndex,
        &format!("{name}.idx"),
        b"index of the pack",
    );
    builder.file(Role::Pack(PackKind::Tip), &format!("{name}.pack"), pack);
    let mut header = b"DIRC\0\0\0\x02".to_vec();
    header.extend(u32::try_from(files.len()).unwrap().to_be_bytes());
    builder.file(Role::IndexHeader, "index", &header);
    for part in index_parts {
        builder.file(Role::IndexPart, "index", part);
    }
    let trailer = [&b"link\0\0\0\x14"[..], &[7; 20], &[0; 20]].concat();
    builder.file(Role::IndexTrailer, "index", &trailer);
    for run in files.chunks(2) {
        builder.members(Role::WorkTree, run);
    }
    builder.finish(&[refs.as_bytes(), pack].concat())
}
