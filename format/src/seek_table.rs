//! The seek table of the Zstandard Seekable Format. Existing tools use it to seek in an archive.
//!
//! This crate writes no checksums of frames. A mount reads only the footer of the table, to find
//! the TOC in front of it.

use crate::limits::{MAX_SEEK_TABLE_LEN, check_at_most};
use crate::wire::{
    FieldReader, FieldWriter as _, SKIPPABLE_HEADER_LEN, skippable_frame, skippable_payload,
};
use crate::{Error, Result};

const SECTION: &str = "seek table";
const FRAME_MAGIC: u32 = 0x184D_2A5E;
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// The length of the footer at the very end of an archive: frame count, descriptor, magic number.
pub(crate) const FOOTER_LEN: usize = 9;
const CHECKSUM_FLAG: u8 = 0x80;
const RESERVED_BITS: u8 = 0x7C;

/// The lengths of one frame of an archive, in bytes; a skippable frame has no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize {
    /// The length in the archive.
    pub stored_len: u32,
    /// The length of the content.
    pub content_len: u32,
}

/// The list of all frames of an archive except the seek table itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeekTable {
    /// The frames, in order.
    pub frames: Vec<FrameSize>,
}

impl SeekTable {
    /// Encodes the table as the skippable frame that ends an archive.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let footer = Footer {
            frame_count: u32::try_from(self.frames.len()).unwrap_or(u32::MAX),
            has_checksums: false,
        };
        footer.check()?;
        let mut payload = Vec::new();
        for frame in &self.frames {
            payload.put_u32(frame.stored_len);
            payload.put_u32(frame.content_len);
        }
        payload.put_u32(footer.frame_count);
        payload.push(0);
        payload.put_u32(FOOTER_MAGIC);
        skippable_frame(FRAME_MAGIC, &payload, SECTION)
    }

    /// Decodes the skippable frame that ends an archive.
    pub fn decode(frame: &[u8]) -> Result<Self> {
        let payload = skippable_payload(frame, FRAME_MAGIC, SECTION)?;
        let footer = Footer::decode(payload)?;
        let mut reader = FieldReader::new(payload, SECTION);
        // The capacity follows from the bytes that are there, not from the count in the footer.
        let mut frames = Vec::with_capacity(payload.len() / 8);
        for _ in 0..footer.frame_count {
            frames.push(FrameSize {
                stored_len: reader.u32()?,
                content_len: reader.u32()?,
            });
            if footer.has_checksums {
                reader.u32()?;
            }
        }
        reader.take(FOOTER_LEN)?;
        reader.finish()?;
        Ok(Self { frames })
    }

    /// Reads the length in bytes of the seek table's frame from `tail`, the last bytes of an
    /// archive.
    pub fn frame_len(tail: &[u8]) -> Result<u64> {
        Footer::decode(tail).map(|footer| footer.frame_len())
    }
}

/// The last nine bytes of an archive.
struct Footer {
    frame_count: u32,
    has_checksums: bool,
}

impl Footer {
    fn decode(tail: &[u8]) -> Result<Self> {
        let at = tail
            .len()
            .checked_sub(FOOTER_LEN)
            .ok_or(Error::Truncated { section: SECTION })?;
        let mut reader = FieldReader::new(tail.get(at..).unwrap_or_default(), SECTION);
        let frame_count = reader.u32()?;
        let descriptor = reader.u8()?;
        if reader.u32()? != FOOTER_MAGIC {
            return Err(reader.malformed(
                "its magic number is wrong: the file is not a cachewfs archive, or is cut off",
            ));
        }
        if descriptor & RESERVED_BITS != 0 {
            return Err(reader.malformed("reserved bits are set"));
        }
        let footer = Self {
            frame_count,
            has_checksums: descriptor & CHECKSUM_FLAG != 0,
        };
        footer.check()?;
        Ok(footer)
    }

    /// Refuses a table that is over the limit.
    fn check(&self) -> Result<()> {
        check_at_most(SECTION, self.frame_len(), MAX_SEEK_TABLE_LEN)
    }

    fn frame_len(&self) -> u64 {
        let record_len = if self.has_checksums { 12 } else { 8 };
        let fixed = u64::try_from(SKIPPABLE_HEADER_LEN.saturating_add(FOOTER_LEN)).unwrap_or(0);
        u64::from(self.frame_count)
            .saturating_mul(record_len)
            .saturating_add(fixed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(sizes in prop::collection::vec(any::<(u32, u32)>(), 0..50)) {
            let frames = sizes
                .into_iter()
                .map(|(stored_len, content_len)| FrameSize { stored_len, content_len })
                .collect();
            let table = SeekTable { frames };

            let frame = table.encode().unwrap();

            prop_assert_eq!(SeekTable::frame_len(&frame).unwrap(), frame.len() as u64);
            prop_assert_eq!(SeekTable::decode(&frame).unwrap(), table);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(SeekTable::decode(&bytes));
            drop(SeekTable::frame_len(&bytes));
        }
    }

    #[test]
    fn a_table_longer_than_a_reader_takes_is_not_written() {
        let size = FrameSize {
            stored_len: 1,
            content_len: 1,
        };
        let most = usize::try_from(MAX_SEEK_TABLE_LEN).unwrap() / 8 - 3;
        let table = |count| SeekTable {
            frames: vec![size; count],
        };

        assert!(table(most).encode().is_ok());
        assert!(matches!(
            table(most + 1).encode(),
            Err(Error::TooLarge { .. })
        ));
    }
}
