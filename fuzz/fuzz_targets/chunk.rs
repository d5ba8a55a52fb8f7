//! Fuzzes chunks: only bytes with the right digest and length are decompressed, in limited memory.
#![no_main]

use cachewfs_format::{Chunk, ChunkEncoding, Digest, decode_chunk, encode_chunk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((content_len, stored)) = input.split_first_chunk() else {
        return;
    };
    let content_len = u32::from_le_bytes(*content_len);
    // Any length, a small length, and the length in the frame's header, which is usually right.
    for content_len in [content_len, content_len % 4096, claimed_len(stored)] {
        check(content_len, stored);
    }
    for encoding in [ChunkEncoding::Raw, ChunkEncoding::Zstd(1)] {
        if let Ok((chunk, encoded)) = encode_chunk(stored, encoding) {
            assert_eq!(decode_chunk(&chunk, &encoded).as_deref(), Ok(stored));
        }
    }
});

/// Returns the content size of a frame with the descriptor `0b1010_0000`, as the writer makes them.
fn claimed_len(stored: &[u8]) -> u32 {
    let field = stored.get(5..9).and_then(|field| field.try_into().ok());
    field.map_or(1, u32::from_le_bytes)
}

fn check(content_len: u32, stored: &[u8]) {
    let Ok(stored_len) = u32::try_from(stored.len()) else {
        return;
    };
    let right = Chunk {
        stored_len,
        content_len,
        digest: Digest::of(stored),
    };
    let max_bytes = 4096 + usize::try_from(content_len).unwrap_or(0).min(4 << 20);

    let decoded = cachewfs_fuzz::with_memory_limit(max_bytes, || decode_chunk(&right, stored));

    if let Ok(content) = decoded {
        assert_eq!(content.len() as u64, u64::from(content_len));
    }
    let wrong = Chunk {
        digest: Digest::of(b"something else"),
        ..right
    };
    let refused = cachewfs_fuzz::with_memory_limit(4096, || decode_chunk(&wrong, stored));
    assert!(refused.is_err());
}
