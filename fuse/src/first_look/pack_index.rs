//! Finds the offset of an object in a pack, in `.idx` files of version 2 (`gitformat-pack(5)`).
//!
//! ```text
//! header | fan-out | ids | checksums | offsets (4 bytes) | offsets (8 bytes) | two digests
//! ```

use std::sync::Arc;

use futures_util::future::join3;

use super::around::{fetch_around, number_at, read};
use super::sorted_ids::{FANOUT_LEN, SortedIds, guess};
use crate::segment::{ReadError, Segment};

const HEADER_LEN: usize = 8;
/// The offset of the ids, in bytes.
const IDS_AT: u64 = (HEADER_LEN + FANOUT_LEN) as u64;

/// Fetches the bytes that git reads to find the object `oid` in `index`.
///
/// Returns the object's offset in the pack, or `None` if it isn't there or has an offset of 8
/// bytes.
pub(super) async fn find(index: &Arc<Segment>, oid: &[u8]) -> Result<Option<u64>, ReadError> {
    let id_len = oid.len() as u64;
    let ids = SortedIds {
        segment: index,
        at: IDS_AT,
        id_len,
    };
    index.fetch_front().await?;
    // The number of objects follows from the file's length: each takes an id, a checksum and an
    // offset of 4 bytes. Few packs have offsets of 8 bytes; then the guess is off.
    let count = index.len().saturating_sub(IDS_AT + 2 * id_len) / (id_len + 8);
    let offset_at = |position: u64, count: u64| {
        let offsets_at = ids.id_at(count).saturating_add(count * 4);
        let at = offsets_at.saturating_add(position * 4);
        at..at.saturating_add(4)
    };
    // So these requests don't wait for the fan-out table, which has the exact number.
    let guess = guess(&(0..count), oid);
    let (header, (), ()) = join3(
        read(index, 0..IDS_AT),
        fetch_around(index, ids.id_at(guess)..ids.id_at(guess)),
        fetch_around(index, offset_at(guess, count)),
    )
    .await;
    let header = header?;
    let fanout = header.get(HEADER_LEN..).unwrap_or_default();
    let Some(count) = number_at(fanout, FANOUT_LEN - 4) else {
        return Ok(None);
    };
    let Some(position) = ids.find(fanout, oid).await? else {
        return Ok(None);
    };
    let offset = read(index, offset_at(position, count)).await?;
    // A number from 2^31 on is an index into the offsets of 8 bytes, which isn't worth a request.
    Ok(number_at(&offset, 0).filter(|&offset| offset < 1 << 31))
}
