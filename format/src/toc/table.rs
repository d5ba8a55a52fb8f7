//! Encodes, decodes and checks the TOC.

use super::{ArchiveKind, Role, SECTION, TRAILER_LEN, TRAILER_MAGIC, TocSegment};
use crate::limits::{MAX_INDEX_LEN, MAX_REFS_LEN, MAX_SEGMENTS, MAX_TOC_LEN, check_at_most};
use crate::wire::{FieldReader, FieldWriter as _, skippable_frame, skippable_payload};
use crate::{Digest, Error, ObjectId, RepoName, Result};

const MAGIC: [u8; 8] = *b"CWFSTOC\0";
const VERSION: u16 = 1;
const FRAME_MAGIC: u32 = 0x184D_2A5B;
/// The fewest bytes that the record of a segment takes: id, role, three lengths, an empty path.
const MIN_RECORD_LEN: usize = 32 + 1 + 8 + 4 + 8 + 2;

/// The table of contents of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    /// The kind of archive.
    pub kind: ArchiveKind,
    /// The repository.
    pub repo: RepoName,
    /// The commit of HEAD.
    pub commit: ObjectId,
    /// The digest of the refs. An LFS archive doesn't depend on the refs, and has the digest of no
    /// bytes.
    pub refs_digest: Digest,
    /// The number of segments in the hot front: the first segments, which a checkout needs.
    pub hot_segments: u32,
    /// The segments, in order.
    pub segments: Vec<TocSegment>,
}

impl Toc {
    /// Encodes the TOC. Returns the digest that names the archive, and the TOC's skippable frame.
    pub fn encode(&self) -> Result<(Digest, Vec<u8>)> {
        self.check()?;
        let mut payload = Vec::new();
        payload.extend_from_slice(&MAGIC);
        payload.put_u16(VERSION);
        payload.push(self.kind.tag());
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

    /// Decodes the skippable frame of a TOC. Also returns the digest that names the archive.
    pub fn decode(frame: &[u8]) -> Result<(Digest, Self)> {
        let payload = skippable_payload(frame, FRAME_MAGIC, SECTION)?;
        check_len(payload.len())?;
        let mut reader = FieldReader::new(payload, SECTION);
        reader.magic_and_version(MAGIC, VERSION)?;
        let kind = ArchiveKind::from_tag(reader.u8()?)
            .ok_or_else(|| reader.malformed("the kind of archive is unknown"))?;
        let name = std::str::from_utf8(reader.bytes()?)
            .map_err(|_| reader.malformed("the name of the repository is not UTF-8"))?;
        let repo = RepoName::parse(name)?;
        // `parse` drops a final ".git". A TOC with it would decode to the value of another TOC, and
        // one archive would have two names.
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
            return Err(reader.malformed("its trailer has another length or magic number"));
        }
        let toc = Self {
            kind,
            repo,
            commit,
            refs_digest,
            hot_segments,
            segments,
        };
        toc.check()?;
        reader.finish()?;
        Ok((Digest::of(payload), toc))
    }

    fn check(&self) -> Result<()> {
        let bad = |reason| {
            let section = SECTION;
            Err(Error::Malformed { section, reason })
        };
        if self.archive_len().is_none() {
            return bad("the sum of the lengths of its segments overflows");
        }
        if usize::try_from(self.hot_segments).is_ok_and(|hot| hot > self.segments.len()) {
            return bad("its hot front has more segments than the archive");
        }
        self.check_mount_limits()
    }

    /// Refuses an archive for which a mount would need too much memory.
    fn check_mount_limits(&self) -> Result<()> {
        // Mounts don't read LFS archives.
        if self.kind == ArchiveKind::Lfs {
            return Ok(());
        }
        // A mount reads refs and index whole, and keeps all records of segments. A few bytes of
        // zstd can be gigabytes of content, so the sums are checked before anything is fetched.
        check_at_most("list of segments", self.segments.len(), MAX_SEGMENTS)?;
        let (mut refs, mut index) = (0_u64, 0_u64);
        for segment in &self.segments {
            let sum = match segment.role {
                Role::Refs | Role::PackedRefs => &mut refs,
                Role::IndexHeader | Role::IndexPart | Role::IndexTrailer => &mut index,
                _ => continue,
            };
            *sum = sum.saturating_add(segment.content_len);
        }
        check_at_most("content of the refs", refs, MAX_REFS_LEN)?;
        check_at_most("index", index, MAX_INDEX_LEN)
    }

    /// Refuses the TOC unless its segments end exactly at `offset`, where its frame starts in the
    /// archive, in bytes.
    pub fn check_offset(&self, offset: u64) -> Result<()> {
        if self.archive_len() == Some(offset) {
            return Ok(());
        }
        Err(Error::Malformed {
            section: SECTION,
            reason: "its segments don't end where the TOC starts",
        })
    }

    /// Returns the length of all segments in bytes, which is the offset of the TOC's frame. Returns
    /// `None` if the sum overflows; [`Toc::decode`] refuses such a TOC.
    pub fn archive_len(&self) -> Option<u64> {
        self.segments
            .iter()
            .try_fold(0_u64, |sum, segment| sum.checked_add(segment.stored_len))
    }

    /// Returns the segments, each with its offset in the archive in bytes.
    pub fn segments_with_offsets(&self) -> impl Iterator<Item = (u64, &TocSegment)> {
        self.segments.iter().scan(0_u64, |offset, segment| {
            let start = *offset;
            *offset = offset.saturating_add(segment.stored_len);
            Some((start, segment))
        })
    }
}

/// Refuses a payload that is over the limit.
pub(super) fn check_len(len: usize) -> Result<()> {
    check_at_most(SECTION, len, MAX_TOC_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SegmentId;

    #[test]
    fn a_repository_name_that_is_not_canonical_is_refused() {
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

    #[test]
    fn content_that_a_mount_reads_whole_is_limited() {
        const PART: u64 = 64 << 20;
        let toc = |kind, role: Role, segments: u32, content_len| {
            let file = role.is_file_data().then(|| crate::TocFile {
                path: crate::GitPath::parse(b"index").unwrap(),
                size: content_len,
                mtime: 0,
            });
            let segment = TocSegment {
                id: SegmentId(Digest::of(b"")),
                role,
                stored_len: 4000,
                table_len: 26 + 40 * 32,
                content_len,
                file,
            };
            Toc {
                kind,
                repo: RepoName::parse("h/a").unwrap(),
                commit: ObjectId::parse(&"12".repeat(20)).unwrap(),
                refs_digest: Digest::of(b"refs"),
                hot_segments: 0,
                segments: vec![segment; usize::try_from(segments).unwrap()],
            }
        };
        for (role, parts) in [
            (Role::IndexPart, 16),
            (Role::PackedRefs, 4),
            (Role::Refs, 4),
        ] {
            for kind in [ArchiveKind::Mirror, ArchiveKind::Checkout] {
                let (_, good) = toc(kind, role, parts, PART).encode().unwrap();
                assert!(Toc::decode(&good).is_ok());
                let bad = toc(kind, role, parts + 1, PART).encode();
                assert!(matches!(bad, Err(Error::TooLarge { .. })), "{role:?}");
            }
        }
        let many = toc(ArchiveKind::Mirror, Role::End, MAX_SEGMENTS + 1, 1024);
        assert!(matches!(many.encode(), Err(Error::TooLarge { .. })));
        assert!(
            toc(ArchiveKind::Lfs, Role::End, MAX_SEGMENTS + 1, 1024)
                .encode()
                .is_ok()
        );
    }

    #[test]
    fn segments_fill_the_archive_up_to_the_toc() {
        let segment = |stored_len| TocSegment {
            id: SegmentId(Digest::of(b"")),
            role: Role::End,
            stored_len,
            table_len: 66,
            content_len: 1024,
            file: None,
        };
        let toc = |hot_segments, lens: &[u64]| Toc {
            kind: ArchiveKind::Mirror,
            repo: RepoName::parse("h/a").unwrap(),
            commit: ObjectId::parse(&"12".repeat(20)).unwrap(),
            refs_digest: Digest::of(b"refs"),
            hot_segments,
            segments: lens.iter().map(|&len| segment(len)).collect(),
        };

        assert!(toc(3, &[100, 200]).encode().is_err());
        assert!(toc(0, &[1 << 63, 1 << 63]).encode().is_err());
        let good = toc(2, &[100, 200]);
        assert!(good.check_offset(300).is_ok());
        for wrong in [0, 299, 301, u64::MAX] {
            assert!(good.check_offset(wrong).is_err());
        }
        let (_, mut frame) = good.encode().unwrap();
        // The number of hot segments is 8 bytes in front of the first record.
        let at = frame.len() - 8 - 2 * MIN_RECORD_LEN - 8;
        frame[at] = 3;
        assert!(matches!(Toc::decode(&frame), Err(Error::Malformed { .. })));
    }
}
