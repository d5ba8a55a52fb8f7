//! Reads the commit of HEAD out of a pack of which only that is fetched.

use std::sync::Arc;

use cachewfs_format::ObjectId;

use super::around::read;
use super::first_look::hot_packs;
use super::pack_index;
use crate::segment::{ReadError, Segment};

/// Bytes to read first. Most commits are shorter.
const FIRST_LEN: u64 = 4096;
/// At most this many bytes of a commit are read.
const MAX_LEN: u64 = 1 << 20;
/// The type of a commit in the header of a pack entry.
const COMMIT: u8 = 1;

/// Returns the content of the commit `head`, or `None` if it isn't stored as the publisher stores
/// commits. The caller verifies it.
pub(crate) async fn read_commit(
    head: ObjectId,
    segments: &[Arc<Segment>],
) -> Result<Option<Vec<u8>>, ReadError> {
    for (pack, index) in hot_packs(segments) {
        let Some(index) = index else { continue };
        let Some(offset) = pack_index::find(index, head.as_bytes()).await? else {
            continue;
        };
        let mut len = FIRST_LEN;
        loop {
            let end = offset.saturating_add(len).min(pack.len());
            let entry = read(pack, offset..end).await?;
            if let Some(commit) = stored_commit(&entry) {
                return Ok(Some(commit));
            }
            if len >= MAX_LEN || end == pack.len() {
                break;
            }
            len *= 4;
        }
    }
    Ok(None)
}

/// Returns the content of a pack entry (`gitformat-pack(5)`), or `None` if it isn't a commit, isn't
/// complete, or is compressed: published packs have stored blocks (RFC 1951, section 3.2.4).
fn stored_commit(entry: &[u8]) -> Option<Vec<u8>> {
    let (&first, mut rest) = entry.split_first()?;
    let mut size = usize::from(first & 15);
    let (mut shift, mut last) = (4, first);
    while last & 0x80 != 0 {
        let (&byte, after) = rest.split_first()?;
        size |= usize::from(byte & 0x7F).checked_shl(shift)?;
        (last, rest, shift) = (byte, after, shift + 7);
    }
    // The header of the zlib stream.
    let mut blocks = rest.get(2..)?;
    let mut content = Vec::new();
    while content.len() < size {
        let &[kind, low, high, _, _] = blocks.first_chunk()?;
        let end = 5 + usize::from(u16::from_le_bytes([low, high]));
        content.extend_from_slice(blocks.get(5..end)?);
        blocks = blocks.get(end..)?;
        if kind & 6 != 0 || end == 5 {
            return None;
        }
    }
    (first >> 4 & 7 == COMMIT && content.len() == size).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_blocks_are_read() {
        let entry = |kind: u8, size: u8, blocks: &[u8]| {
            [
                &[kind << 4 | 0x80 | (size & 15), size >> 4, 0x78, 1],
                blocks,
            ]
            .concat()
        };
        let two = [&[0, 16, 0, 0, 0][..], &[b'a'; 16], &[1, 1, 0, 0, 0], b"b"].concat();

        let content = stored_commit(&entry(COMMIT, 17, &two));

        assert_eq!(content.unwrap(), [&[b'a'; 16][..], b"b"].concat());
        for bad in [
            entry(2, 17, &two),
            entry(COMMIT, 18, &two),
            entry(COMMIT, 16, &two)[..12].to_vec(),
            entry(COMMIT, 17, &[3, 17, 0, 0, 0]),
            entry(COMMIT, 17, &[0, 0, 0, 0, 0]),
            Vec::new(),
        ] {
            assert_eq!(stored_commit(&bad), None, "{bad:?}");
        }
    }
}
