//! What a segment table says of one tar member.

use crate::wire::{FieldReader, FieldWriter as _};
use crate::{GitPath, ObjectId, Result, SegmentId};

const SECTION: &str = "segment table";
/// Permission bits; set-id and sticky bits are never shown.
const MODE_MASK: u32 = 0o777;

/// One tar member of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path in the archive.
    pub path: GitPath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Length of the content in bytes; 0 for anything but a file.
    pub size: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
    /// The git blob that a file or symbolic link of the work tree was checked out from.
    pub blob: Option<ObjectId>,
}

/// What a tar member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file and where its bytes are.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// In this segment, at this offset of its content.
    Inline {
        /// In bytes from the start of the segment's content.
        offset: u64,
    },
    /// The file is a segment of its own.
    Segment(SegmentId),
}

const DIRECTORY: u8 = 1;
const FILE_INLINE: u8 = 2;
const FILE_SEGMENT: u8 = 3;
const SYMLINK: u8 = 4;

impl Entry {
    /// The fewest bytes that an encoded entry takes: kind, mode, mtime, two lengths, a path.
    pub(super) const MIN_LEN: usize = 1 + 4 + 8 + 1 + 2 + 1;

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.push(match &self.kind {
            EntryKind::Directory => DIRECTORY,
            EntryKind::File(Content::Inline { .. }) => FILE_INLINE,
            EntryKind::File(Content::Segment(_)) => FILE_SEGMENT,
            EntryKind::Symlink(_) => SYMLINK,
        });
        bytes.put_u32(self.mode);
        bytes.extend_from_slice(&self.mtime.to_le_bytes());
        bytes.put_short_bytes(self.blob.as_ref().map_or(&[], ObjectId::as_bytes), SECTION)?;
        bytes.put_bytes(self.path.as_bytes(), SECTION)?;
        match &self.kind {
            EntryKind::Directory => {}
            EntryKind::File(Content::Inline { offset }) => {
                bytes.put_u64(self.size);
                bytes.put_u64(*offset);
            }
            EntryKind::File(Content::Segment(id)) => {
                bytes.put_u64(self.size);
                bytes.extend_from_slice(id.0.as_bytes());
            }
            EntryKind::Symlink(target) => bytes.put_bytes(target, SECTION)?,
        }
        Ok(())
    }

    /// Reads one entry of a segment whose content is `content_len` bytes long.
    pub(super) fn decode(reader: &mut FieldReader<'_>, content_len: u64) -> Result<Self> {
        let tag = reader.u8()?;
        let mode = reader.u32()?;
        if mode & !MODE_MASK != 0 {
            return Err(reader.malformed("an entry has more than permission bits"));
        }
        let mtime = reader.i64()?;
        let blob = match reader.short_bytes()? {
            [] => None,
            raw => Some(ObjectId::from_bytes(raw)?),
        };
        let path = GitPath::parse(reader.bytes()?)?;
        let (kind, size) = match tag {
            DIRECTORY => (EntryKind::Directory, 0),
            FILE_INLINE => {
                let (size, offset) = (reader.u64()?, reader.u64()?);
                if offset.checked_add(size).is_none_or(|end| end > content_len) {
                    return Err(reader.malformed("an entry lies outside its segment"));
                }
                (EntryKind::File(Content::Inline { offset }), size)
            }
            FILE_SEGMENT => {
                let size = reader.u64()?;
                (
                    EntryKind::File(Content::Segment(SegmentId(reader.digest()?))),
                    size,
                )
            }
            SYMLINK => {
                let target = reader.bytes()?;
                if target.is_empty() || target.contains(&0) {
                    return Err(reader.malformed("the target of a symbolic link is no path"));
                }
                (EntryKind::Symlink(target.into()), 0)
            }
            _ => return Err(reader.malformed("an entry has an unknown kind")),
        };
        Ok(Self {
            path,
            kind,
            mode,
            size,
            mtime,
            blob,
        })
    }
}
