//! The TOC: what an archive is of, and its segments in order. Its digest names the archive.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_TABLE_LEN, MAX_TOC_LEN};
use crate::wire::{
    FieldReader, FieldWriter as _, SKIPPABLE_HEADER_LEN, skippable_frame, skippable_payload,
};
use crate::{Digest, Error, GitPath, ObjectId, RepoName, Result, SeekTable, SegmentId};

const SECTION: &str = "TOC";
const MAGIC: [u8; 8] = *b"CWFSTOC\0";
const VERSION: u16 = 1;
const FRAME_MAGIC: u32 = 0x184D_2A5B;
/// At the very end of the TOC, so that it is found backwards: its length, then this.
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"CTOC");
const TRAILER_LEN: usize = 8;
/// The fewest bytes that the record of a segment takes.
const MIN_RECORD_LEN: usize = 32 + 1 + 8 + 4 + 8 + 2;

/// The two kinds of archive of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    /// A bare repository, `mirror.tar.zst`.
    Mirror,
    /// A working clone, `snapshot.tar.zst`.
    Checkout,
}

impl fmt::Display for ArchiveKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mirror => "mirror",
            Self::Checkout => "checkout",
        })
    }
}

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)*) => {
        /// What a segment holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Role { $($(#[$doc])* $name,)* }

        impl Role {
            /// All roles.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn tag(self) -> u8 {
                match self { $(Self::$name => $tag,)* }
            }

            const fn from_tag(tag: u8) -> Option<Self> {
                match tag { $($tag => Some(Self::$name),)* _ => None }
            }
        }
    };
}

roles! {
    /// Tar members: the small files and the directories of the git directory.
    Refs = 1,
    /// Tar member: the header of the file whose data is the next segment.
    Header = 2,
    /// File data: one link of the commit-graph chain.
    CommitGraph = 3,
    /// File data: a `.idx` file.
    PackIndex = 4,
    /// File data: a `.rev` file.
    PackReverseIndex = 5,
    /// File data: the pack of HEAD's git trees and git blobs.
    PackTip = 6,
    /// File data: a pack of what was new at a later publish.
    PackIncrement = 7,
    /// File data: the pack of commits and tags.
    PackCommits = 8,
    /// File data: the pack of git trees.
    PackTrees = 9,
    /// File data: the pack of all other git blobs.
    PackHistory = 10,
    /// File data: the header of the git index.
    IndexHeader = 11,
    /// File data: the index entries of one run of the work tree.
    IndexPart = 12,
    /// File data: the extensions and the checksum of the git index.
    IndexTrailer = 13,
    /// Tar members: a run of the work tree.
    WorkTree = 14,
    /// File data: a large file of the work tree, whose header is in the run before it.
    LargeFile = 15,
    /// The two zero blocks that end a tar stream.
    End = 16,
    /// File data: the pack of the other git trees and git blobs of the newest commits.
    PackRecent = 17,
}

/// One segment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocSegment {
    /// The digest of its table.
    pub id: SegmentId,
    /// What it holds.
    pub role: Role,
    /// Length in the archive: chunks and table, in bytes.
    pub stored_len: u64,
    /// Length of the frame of its table, at its end, in bytes.
    pub table_len: u32,
    /// Length of its content, in bytes.
    pub content_len: u64,
    /// For file data: the file that it is, or is a part of.
    pub file: Option<TocFile>,
}

/// The file that the data of a segment is of, or a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocFile {
    /// Relative to the git directory; of a large file, to the work tree.
    pub path: GitPath,
    /// Bytes of the segment's content that belong to the file; the rest is padding of the tar.
    pub size: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

/// What an archive is of, and its segments in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    /// The kind of archive.
    pub kind: ArchiveKind,
    /// The repository.
    pub repo: RepoName,
    /// The commit of HEAD.
    pub commit: ObjectId,
    /// The digest of the refs.
    pub refs_digest: Digest,
    /// How many segments make up the hot front, all that a checkout needs.
    pub hot_segments: u32,
    /// The segments, in order.
    pub segments: Vec<TocSegment>,
}

/// Where the TOC is, as far as the end of an archive tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TocPlace {
    /// At this half-open range of the bytes that were given.
    Found(Range<usize>),
    /// Not all of it is in the bytes given: so many bytes at the end of the archive hold it, or
    /// hold its length at least.
    NeedsTail(u64),
}

impl Toc {
    /// Encodes the TOC as its skippable frame, with the digest that names the archive.
    pub fn encode(&self) -> Result<(Digest, Vec<u8>)> {
        let mut payload = Vec::new();
        payload.extend_from_slice(&MAGIC);
        payload.put_u16(VERSION);
        payload.push(match self.kind {
            ArchiveKind::Mirror => 1,
            ArchiveKind::Checkout => 2,
        });
        payload.put_bytes(self.repo.as_str().as_bytes(), SECTION)?;
        payload.put_short_bytes(self.commit.as_bytes(), SECTION)?;
        payload.extend_from_slice(self.refs_digest.as_bytes());
        payload.put_u32(self.hot_segments);
        payload.put_count(self.segments.len(), SECTION)?;
        for segment in &self.segments {
            segment.encode(&mut payload)?;
        }
        let len = payload.len().saturating_add(TRAILER_LEN);
        check_len(len)?;
        payload.put_count(len, SECTION)?;
        payload.put_u32(TRAILER_MAGIC);
        Ok((
            Digest::of(&payload),
            skippable_frame(FRAME_MAGIC, &payload, SECTION)?,
        ))
    }

    /// Finds the TOC in `tail`, the last bytes of an archive of `archive_len` bytes.
    pub fn locate(tail: &[u8], archive_len: u64) -> Result<TocPlace> {
        let seek_len = SeekTable::frame_len(tail)?;
        let needs_tail = |len: u64| {
            if len > archive_len {
                return Err(Error::Truncated { section: SECTION });
            }
            Ok(TocPlace::NeedsTail(len))
        };
        let trailer_len = u64::try_from(TRAILER_LEN).unwrap_or(0);
        let before_seek = usize::try_from(seek_len)
            .ok()
            .and_then(|len| tail.len().checked_sub(len));
        let Some(end) = before_seek.filter(|&end| end >= TRAILER_LEN) else {
            // The TOC is usually much smaller than this: one more request is enough.
            let guess = seek_len.saturating_add(64 << 10).min(archive_len);
            return needs_tail(guess.max(seek_len.saturating_add(trailer_len)));
        };
        let trailer = tail
            .get(end.saturating_sub(TRAILER_LEN)..end)
            .unwrap_or_default();
        let mut reader = FieldReader::new(trailer, SECTION);
        let len = reader.u32()?;
        if reader.u32()? != TRAILER_MAGIC {
            return Err(reader.malformed("its trailer is not before the seek table"));
        }
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        check_len(payload_len)?;
        let frame_len = payload_len.saturating_add(SKIPPABLE_HEADER_LEN);
        match end.checked_sub(frame_len) {
            Some(start) => Ok(TocPlace::Found(start..end)),
            None => {
                needs_tail(seek_len.saturating_add(u64::try_from(frame_len).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Decodes the skippable frame of a TOC; also gives the digest that names the archive.
    pub fn decode(frame: &[u8]) -> Result<(Digest, Self)> {
        let payload = skippable_payload(frame, FRAME_MAGIC, SECTION)?;
        check_len(payload.len())?;
        let mut reader = FieldReader::new(payload, SECTION);
        reader.magic_and_version(MAGIC, VERSION)?;
        let kind = match reader.u8()? {
            1 => ArchiveKind::Mirror,
            2 => ArchiveKind::Checkout,
            _ => return Err(reader.malformed("the kind of archive is unknown")),
        };
        let name = std::str::from_utf8(reader.bytes()?)
            .map_err(|_| reader.malformed("the name of the repository is not UTF-8"))?;
        let repo = RepoName::parse(name)?;
        if repo.as_str() != name {
            return Err(reader.malformed("the name of the repository ends in '.git'"));
        }
        let commit = ObjectId::from_bytes(reader.short_bytes()?)?;
        let refs_digest = reader.digest()?;
        let hot_segments = reader.u32()?;
        let count = reader.count(MIN_RECORD_LEN)?;
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            segments.push(TocSegment::decode(&mut reader)?);
        }
        let len = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        if reader.u32()? != TRAILER_MAGIC || len != payload.len() {
            return Err(reader.malformed("its trailer doesn't fit"));
        }
        let toc = Self {
            kind,
            repo,
            commit,
            refs_digest,
            hot_segments,
            segments,
        };
        if toc.archive_len().is_none() {
            return Err(reader.malformed("the lengths of its segments overflow"));
        }
        reader.finish()?;
        Ok((Digest::of(payload), toc))
    }

    /// Length of all segments, which is where the TOC's frame starts; `None` if it overflows,
    /// which [`Toc::decode`] refuses.
    pub fn archive_len(&self) -> Option<u64> {
        self.segments
            .iter()
            .try_fold(0_u64, |sum, segment| sum.checked_add(segment.stored_len))
    }

    /// The segments with the offset of each in the archive, in bytes.
    pub fn placed_segments(&self) -> impl Iterator<Item = (u64, &TocSegment)> {
        self.segments.iter().scan(0_u64, |offset, segment| {
            let start = *offset;
            *offset = offset.saturating_add(segment.stored_len);
            Some((start, segment))
        })
    }
}

impl TocSegment {
    fn encode(&self, payload: &mut Vec<u8>) -> Result<()> {
        payload.extend_from_slice(self.id.0.as_bytes());
        payload.push(self.role.tag());
        payload.put_u64(self.stored_len);
        payload.put_u32(self.table_len);
        payload.put_u64(self.content_len);
        let Some(file) = &self.file else {
            payload.put_u16(0);
            return Ok(());
        };
        payload.put_bytes(file.path.as_bytes(), SECTION)?;
        payload.put_u64(file.size);
        payload.extend_from_slice(&file.mtime.to_le_bytes());
        Ok(())
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self> {
        let id = SegmentId(reader.digest()?);
        let role = Role::from_tag(reader.u8()?)
            .ok_or_else(|| reader.malformed("the role of a segment is unknown"))?;
        let (stored_len, table_len, content_len) = (reader.u64()?, reader.u32()?, reader.u64()?);
        let max = MAX_TABLE_LEN.saturating_add(u32::try_from(SKIPPABLE_HEADER_LEN).unwrap_or(0));
        if table_len > max {
            // A reader fetches a table before it can verify it.
            let (len, max) = (u64::from(table_len), u64::from(max));
            return Err(Error::TooLarge {
                section: "segment table",
                len,
                max,
            });
        }
        if u64::from(table_len) > stored_len {
            return Err(reader.malformed("the table of a segment is longer than the segment"));
        }
        let file = match reader.bytes()? {
            [] => None,
            path => {
                let (path, size) = (GitPath::parse(path)?, reader.u64()?);
                if size > content_len {
                    return Err(reader.malformed("a file is longer than its segment"));
                }
                Some(TocFile {
                    path,
                    size,
                    mtime: reader.i64()?,
                })
            }
        };
        Ok(Self {
            id,
            role,
            stored_len,
            table_len,
            content_len,
            file,
        })
    }
}

fn check_len(len: usize) -> Result<()> {
    let (len, max) = (
        u64::try_from(len).unwrap_or(u64::MAX),
        u64::from(MAX_TOC_LEN),
    );
    if len > max {
        Err(Error::TooLarge {
            section: SECTION,
            len,
            max,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_spelling() {
        let toc = |repo: &str| Toc {
            kind: ArchiveKind::Mirror,
            repo: RepoName::parse(repo).unwrap(),
            commit: ObjectId::parse(&"12".repeat(20)).unwrap(),
            refs_digest: Digest::of(b"refs"),
            hot_segments: 0,
            segments: Vec::new(),
        };
        let mut frame = toc("h/abcd_git").encode().unwrap().1;
        let at = frame.iter().position(|&byte| byte == b'_').unwrap();

        frame[at] = b'.';

        assert!(matches!(Toc::decode(&frame), Err(Error::Malformed { .. })));
    }
}
