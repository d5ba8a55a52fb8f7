//! Reads and writes the little-endian fields of the binary formats, and skippable frames.

use crate::{Digest, Error, Result};

/// A cursor over a byte slice that reads fields in order. A field that goes past the end is an
/// error.
#[derive(Debug)]
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
    section: &'static str,
}

impl<'a> FieldReader<'a> {
    /// Starts at the front of `bytes`. Errors call them `section`.
    pub(crate) fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Self {
            rest: bytes,
            section,
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated {
            section: self.section,
        })?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Error::Truncated {
            section: self.section,
        })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest> {
        self.array().map(Digest::from_bytes)
    }

    /// Reads a byte string whose length is stored in one byte before it.
    pub(crate) fn short_bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// Reads a byte string whose length is stored in two bytes before it.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Reads the count of the records that follow, each of at least `min_len` bytes.
    ///
    /// Refuses a count whose records can't fit in the remaining bytes. So the caller may reserve
    /// memory for that many records.
    pub(crate) fn count(&mut self, min_len: usize) -> Result<usize> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.expect_records(count, min_len)?;
        Ok(count)
    }

    /// Refuses `count` if that many records of at least `min_len` bytes can't fit in the remaining
    /// bytes.
    pub(crate) fn expect_records(&self, count: usize, min_len: usize) -> Result<()> {
        let needed = count.checked_mul(min_len);
        if needed.is_some_and(|needed| needed <= self.rest.len()) {
            Ok(())
        } else {
            Err(Error::Truncated {
                section: self.section,
            })
        }
    }

    /// Reads and checks magic bytes and a version.
    pub(crate) fn magic_and_version(&mut self, magic: [u8; 8], version: u16) -> Result<()> {
        if self.array()? != magic {
            return Err(self.malformed("its magic bytes are wrong"));
        }
        let found = self.u16()?;
        if found != version {
            return Err(Error::UnknownVersion {
                section: self.section,
                version: found.into(),
            });
        }
        Ok(())
    }

    /// Refuses bytes that remain after the last field. Otherwise many different inputs would decode
    /// to one value.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("it has more bytes after its last field"))
        }
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> Error {
        Error::Malformed {
            section: self.section,
            reason,
        }
    }
}

/// Appends fields to a byte vector.
pub(crate) trait FieldWriter {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    /// Appends a byte string with its length in one byte before it. A string over 255 bytes is
    /// `Malformed`.
    fn put_short_bytes(&mut self, bytes: &[u8], section: &'static str) -> Result<()>;
    /// Appends a byte string with its length in two bytes before it. A string over 65535 bytes is
    /// `Malformed`.
    fn put_bytes(&mut self, bytes: &[u8], section: &'static str) -> Result<()>;
    /// Appends a count in four bytes. A count over 2^32 - 1 is `Malformed`.
    fn put_count(&mut self, count: usize, section: &'static str) -> Result<()>;
}

impl FieldWriter for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_short_bytes(&mut self, bytes: &[u8], section: &'static str) -> Result<()> {
        let reason = "a field is longer than 255 bytes";
        self.push(u8::try_from(bytes.len()).map_err(|_| Error::Malformed { section, reason })?);
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn put_bytes(&mut self, bytes: &[u8], section: &'static str) -> Result<()> {
        let reason = "a field is longer than 65535 bytes";
        self.put_u16(u16::try_from(bytes.len()).map_err(|_| Error::Malformed { section, reason })?);
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn put_count(&mut self, count: usize, section: &'static str) -> Result<()> {
        let reason = "a count doesn't fit in 32 bits";
        self.put_u32(u32::try_from(count).map_err(|_| Error::Malformed { section, reason })?);
        Ok(())
    }
}

/// The length of the header of a skippable frame, in bytes.
pub(crate) const SKIPPABLE_HEADER_LEN: usize = 8;

/// Wraps `payload` in a zstd skippable frame (RFC 8878 section 3.1.2).
pub(crate) fn skippable_frame(
    magic: u32,
    payload: &[u8],
    section: &'static str,
) -> Result<Vec<u8>> {
    let reason = "it doesn't fit in a skippable frame, which holds less than 4 GiB";
    let len = u32::try_from(payload.len()).map_err(|_| Error::Malformed { section, reason })?;
    let mut frame = Vec::with_capacity(payload.len().saturating_add(SKIPPABLE_HEADER_LEN));
    frame.put_u32(magic);
    frame.put_u32(len);
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Returns the payload of the skippable frame that is exactly the bytes of `frame`.
pub(crate) fn skippable_payload<'a>(
    frame: &'a [u8],
    magic: u32,
    section: &'static str,
) -> Result<&'a [u8]> {
    let mut reader = FieldReader::new(frame, section);
    if reader.u32()? != magic {
        return Err(reader.malformed("the magic number of its skippable frame is wrong"));
    }
    let len = reader.u32()?;
    let payload = reader.take(usize::try_from(len).unwrap_or(usize::MAX))?;
    reader.finish()?;
    Ok(payload)
}
