//! A segment table's record of one tar member.

use crate::wire::{FieldReader, FieldWriter as _};
use crate::{Error, GitPath, ObjectId, Result, SegmentId};

const SECTION: &str = "segment table";
/// The bits of a mode that an entry may have: permissions, without set-id and sticky bits.
const MODE_MASK: u32 = 0o777;

/// One tar member of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path in the archive.
    pub path: GitPath,
    /// The type of the tar member.
    pub kind: EntryKind,
    /// The permission bits, at most `0o777`.
    pub mode: u32,
    /// The length of the content in bytes. 0 for anything but a file.
    pub size: u64,
    /// The modification time in seconds since the epoch.
    pub mtime: i64,
    /// The git blob from which a file or symbolic link of the work tree was checked out.
    pub blob: Option<ObjectId>,
}

/// The type of a tar member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file, and the location of its bytes.
    File(Content),
    /// A symbolic link, and its target.
    Symlink(Box<[u8]>),
}

/// The location of the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes are in this segment.
    Inline {
        /// The offset in bytes from the start of the segment's content.
        offset: u64,
    },
    /// The bytes are the content of a segment of their own.
    Segment(SegmentId),
}

const DIRECTORY: u8 = 1;
const FILE_INLINE: u8 = 2;
const FILE_SEGMENT: u8 = 3;
const SYMLINK: u8 = 4;

impl Entry {
    /// The fewest bytes that an encoded entry takes: kind, mode, mtime, two lengths, a path.
    pub(super) const MIN_LEN: usize = 1 + 4 + 8 + 1 + 2 + 1;

    /// Refuses an invalid entry of a segment whose content is `content_len` bytes long. Readers and
    /// writers use the same rules.
    fn check(&self, content_len: u64) -> Result<()> {
        let bad = |reason| {
            let section = SECTION;
            Err(Error::Malformed { section, reason })
        };
        if self.mode & !MODE_MASK != 0 {
            return bad("the mode of an entry has more than permission bits");
        }
        match &self.kind {
            EntryKind::File(Content::Inline { offset }) => {
                let end = offset.checked_add(self.size);
                if end.is_none_or(|end| end > content_len) {
                    return bad("the bytes of an entry are outside its segment");
                }
            }
            EntryKind::Directory | EntryKind::Symlink(_) if self.size != 0 => {
                return bad("a directory or symbolic link has a size");
            }
            EntryKind::File(Content::Segment(_)) | EntryKind::Directory => {}
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.contains(&0) {
                    return bad("the target of a symbolic link is empty or has a NUL byte");
                }
            }
        }
        Ok(())
    }

    /// Refuses an entry whose bytes start before `end`, the end of the bytes of the entries before
    /// it. Then moves `end` to the end of this entry's bytes.
    pub(super) fn check_after(&self, end: &mut u64) -> Result<()> {
        // If entries could share bytes, a small segment could have many files of its full length. A
        // reader that copies them would write far more than it has fetched.
        let EntryKind::File(Content::Inline { offset }) = self.kind else {
            return Ok(());
        };
        if offset < *end {
            return Err(Error::Malformed {
                section: SECTION,
                reason: "the bytes of an entry are not after those of the entry before it",
            });
        }
        *end = offset.saturating_add(self.size);
        Ok(())
    }

    /// Encodes the entry at the end of `bytes`. Its segment's content is `content_len` bytes long.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>, content_len: u64) -> Result<()> {
        self.check(content_len)?;
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

    /// Decodes one entry of a segment whose content is `content_len` bytes long.
    pub(super) fn decode(reader: &mut FieldReader<'_>, content_len: u64) -> Result<Self> {
        let tag = reader.u8()?;
        let mode = reader.u32()?;
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
                (EntryKind::File(Content::Inline { offset }), size)
            }
            FILE_SEGMENT => {
                let size = reader.u64()?;
                (
                    EntryKind::File(Content::Segment(SegmentId(reader.digest()?))),
                    size,
                )
            }
            SYMLINK => (EntryKind::Symlink(reader.bytes()?.into()), 0),
            _ => return Err(reader.malformed("an entry has an unknown kind")),
        };
        let entry = Self {
            path,
            kind,
            mode,
            size,
            mtime,
            blob,
        };
        entry.check(content_len)?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    /// Returns an entry of a segment with 100 bytes of content.
    fn entry(kind: EntryKind, mode: u32, size: u64) -> Entry {
        Entry {
            path: GitPath::parse(b"a/b").unwrap(),
            kind,
            mode,
            size,
            mtime: -1,
            blob: None,
        }
    }

    fn encode(entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes, 100).map(|()| bytes)
    }

    #[test]
    fn every_kind_round_trips() {
        for (kind, size) in [
            (EntryKind::Directory, 0),
            (EntryKind::File(Content::Inline { offset: 40 }), 60),
            (
                EntryKind::File(Content::Segment(SegmentId(Digest::of(b"")))),
                1 << 40,
            ),
            (EntryKind::Symlink(Box::from(*b"\xff/..")), 0),
        ] {
            let entry = entry(kind, 0o644, size);

            let bytes = encode(&entry).unwrap();

            let decoded = Entry::decode(&mut FieldReader::new(&bytes, SECTION), 100);
            assert_eq!(decoded, Ok(entry));
        }
    }

    #[test]
    fn entries_do_not_share_bytes() {
        let file = |offset, size| entry(EntryKind::File(Content::Inline { offset }), 0o644, size);
        let are_apart = |entries: &[Entry]| {
            let mut end = 0;
            entries
                .iter()
                .all(|entry| entry.check_after(&mut end).is_ok())
        };
        let directory = entry(EntryKind::Directory, 0o755, 0);

        assert!(are_apart(&[
            file(0, 60),
            file(60, 0),
            directory,
            file(60, 40)
        ]));
        assert!(!are_apart(&[file(0, 60), file(59, 1)]));
        assert!(!are_apart(&[file(0, 60), file(0, 60)]));
        assert!(!are_apart(&[file(60, 40), file(0, 60)]));
    }

    #[test]
    fn entries_that_a_reader_refuses_are_not_written() {
        let file = |offset| EntryKind::File(Content::Inline { offset });
        for refused in [
            entry(EntryKind::Directory, 0o1777, 0),
            entry(EntryKind::Directory, 0o755, 1),
            entry(file(0), 0o4755, 1),
            entry(file(41), 0o644, 60),
            entry(file(u64::MAX), 0o644, 2),
            entry(EntryKind::Symlink(Box::from(*b"")), 0o777, 0),
            entry(EntryKind::Symlink(Box::from(*b"a\0")), 0o777, 0),
            entry(EntryKind::Symlink(Box::from(*b"a")), 0o777, 1),
        ] {
            assert!(encode(&refused).is_err(), "{refused:?} was written");
        }
    }
}
