//! Encodes and decodes a chunk: a zstd frame that is verified before it is decompressed.

use crate::limits::{MAX_CHUNK_LEN, MAX_STORED_CHUNK_LEN, check_at_most};
use crate::segment::Chunk;
use crate::wire::FieldWriter as _;
use crate::{Digest, Error, Result};

/// The way in which the content of a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEncoding {
    /// In raw blocks, for content that doesn't compress. Decoding only copies it.
    Raw,
    /// Compressed by zstd with this level.
    Zstd(i32),
}

const FRAME_MAGIC: u32 = 0xFD2F_B528;
/// The largest block that RFC 8878 allows, in bytes.
const MAX_BLOCK_LEN: usize = 128 << 10;

/// Encodes `content` as one zstd frame. Returns the frame after its record for the segment table.
///
/// Empty content is refused. The frame has its content size, but no checksum, because the digest in
/// the segment table is stronger.
pub fn encode_chunk(content: &[u8], encoding: ChunkEncoding) -> Result<(Chunk, Vec<u8>)> {
    let content_len = checked_len(content.len(), MAX_CHUNK_LEN)?;
    let stored = match encoding {
        ChunkEncoding::Raw => raw_frame(content, content_len),
        ChunkEncoding::Zstd(level) => {
            zstd::bulk::compress(content, level).map_err(|_| Error::Malformed {
                section: "chunk",
                reason: "zstd can't compress it",
            })?
        }
    };
    let stored_len = checked_len(stored.len(), MAX_STORED_CHUNK_LEN)?;
    Ok((
        Chunk {
            stored_len,
            content_len,
            digest: Digest::of(&stored),
        },
        stored,
    ))
}

/// Encodes a frame of raw blocks (RFC 8878 section 3.1.1), as zstd writes it for random bytes.
fn raw_frame(content: &[u8], content_len: u32) -> Vec<u8> {
    // Single segment, four bytes of content size, no checksum, no dictionary.
    const DESCRIPTOR: u8 = 0b1010_0000;
    let mut frame = Vec::with_capacity(content.len().saturating_add(64));
    frame.put_u32(FRAME_MAGIC);
    frame.push(DESCRIPTOR);
    frame.put_u32(content_len);
    let mut blocks = content.chunks(MAX_BLOCK_LEN).peekable();
    while let Some(block) = blocks.next() {
        // Bit 0: last block. Bits 1-2: type, 0 is raw. Bits 3-23: length.
        let is_last = u32::from(blocks.peek().is_none());
        let header = u32::try_from(block.len()).unwrap_or(0) << 3 | is_last;
        frame.extend(header.to_le_bytes().iter().take(3));
        frame.extend_from_slice(block);
    }
    frame
}

/// Verifies `stored` against `chunk`, then decompresses it. The result has `chunk.content_len`
/// bytes.
///
/// If the digest is wrong, nothing is decompressed, and no memory is reserved for the content.
pub fn decode_chunk(chunk: &Chunk, stored: &[u8]) -> Result<Vec<u8>> {
    chunk.check()?;
    if u32::try_from(stored.len()) != Ok(chunk.stored_len) {
        return Err(Error::Malformed {
            section: "chunk",
            reason: "its stored length differs from the one in the segment table",
        });
    }
    if Digest::of(stored) != chunk.digest {
        return Err(Error::WrongDigest {
            section: "chunk",
            expected: chunk.digest,
        });
    }
    // zstd would decompress several frames in a row, or skip a skippable frame. Then different
    // stored bytes could stand for one chunk, and other programs could read the archive
    // differently.
    let is_one_frame = stored.starts_with(&FRAME_MAGIC.to_le_bytes())
        && zstd::zstd_safe::find_frame_compressed_size(stored) == Ok(stored.len());
    if !is_one_frame {
        return Err(Error::Malformed {
            section: "chunk",
            reason: "it isn't exactly one zstd frame",
        });
    }
    let bad = || Error::BadChunk {
        expected_len: chunk.content_len,
    };
    // A right digest doesn't make the length true: the maker of the archive chose both. zstd fails
    // if the content is longer than the capacity, so a small frame can't fill the memory.
    let capacity = usize::try_from(chunk.content_len).map_err(|_| bad())?;
    let content = zstd::bulk::decompress(stored, capacity).map_err(|_| bad())?;
    if content.len() == capacity {
        Ok(content)
    } else {
        Err(bad())
    }
}

impl Chunk {
    /// Refuses lengths over the limits.
    pub(crate) fn check(&self) -> Result<()> {
        check_len(self.content_len, MAX_CHUNK_LEN)?;
        check_len(self.stored_len, MAX_STORED_CHUNK_LEN)
    }
}

/// Converts a length to the type of the segment table, and checks it.
fn checked_len(len: usize, max: u32) -> Result<u32> {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    check_len(len, max).map(|()| len)
}

fn check_len(len: u32, max: u32) -> Result<()> {
    if len == 0 {
        return Err(Error::Malformed {
            section: "chunk",
            reason: "it is empty",
        });
    }
    check_at_most("chunk", len, max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(content in prop::collection::vec(any::<u8>(), 1..4000), raw: bool) {
            let encoding = if raw { ChunkEncoding::Raw } else { ChunkEncoding::Zstd(3) };

            let (chunk, stored) = encode_chunk(&content, encoding).unwrap();

            prop_assert_eq!(decode_chunk(&chunk, &stored).unwrap(), content);
        }

        #[test]
        fn a_changed_byte_is_refused(at in 0_usize..300, to: u8) {
            let (chunk, mut stored) = encode_chunk(&[7; 300], ChunkEncoding::Raw).unwrap();
            let at = at % stored.len();
            prop_assume!(stored[at] != to);
            stored[at] = to;

            let error = decode_chunk(&chunk, &stored).unwrap_err();

            let is_wrong_digest = matches!(error, Error::WrongDigest { .. });
            prop_assert!(is_wrong_digest);
        }
    }

    #[test]
    fn raw_frames_of_several_blocks_round_trip() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();

        let (chunk, stored) = encode_chunk(&content, ChunkEncoding::Raw).unwrap();

        assert_eq!(decode_chunk(&chunk, &stored).unwrap(), content);
        assert_eq!(stored.len(), content.len() + 9 + 10 * 3);
    }

    #[test]
    fn empty_and_too_long_chunks_are_not_written() {
        let too_long = vec![0; usize::try_from(MAX_CHUNK_LEN).unwrap() + 1];
        for encoding in [ChunkEncoding::Raw, ChunkEncoding::Zstd(1)] {
            for content in [&[][..], &too_long] {
                assert!(encode_chunk(content, encoding).is_err());
            }
        }
    }

    #[test]
    fn bytes_of_another_length_are_refused_before_hashing() {
        let (chunk, stored) = encode_chunk(b"content", ChunkEncoding::Raw).unwrap();

        for wrong in [&stored[..stored.len() - 1], &[&stored[..], b"x"].concat()] {
            assert!(matches!(
                decode_chunk(&chunk, wrong),
                Err(Error::Malformed { .. })
            ));
        }
    }

    #[test]
    fn two_frames_are_no_chunk() {
        let (_, half) = encode_chunk(b"half", ChunkEncoding::Raw).unwrap();
        for stored in [
            [&half[..], &half].concat(),
            b"\x50\x2a\x4d\x18\0\0\0\0".to_vec(),
        ] {
            let stored_len = u32::try_from(stored.len()).unwrap();
            let chunk = Chunk {
                stored_len,
                content_len: 8,
                digest: Digest::of(&stored),
            };

            let decoded = decode_chunk(&chunk, &stored);

            assert!(
                matches!(decoded, Err(Error::Malformed { .. })),
                "{decoded:?}"
            );
        }
    }

    #[test]
    fn a_zip_bomb_with_the_right_digest_is_refused() {
        let (_, stored) = encode_chunk(&vec![0; 1 << 20], ChunkEncoding::Zstd(3)).unwrap();
        let stored_len = u32::try_from(stored.len()).unwrap();
        let chunk = Chunk {
            stored_len,
            content_len: 100,
            digest: Digest::of(&stored),
        };

        assert_eq!(
            decode_chunk(&chunk, &stored),
            Err(Error::BadChunk { expected_len: 100 })
        );
    }
}
