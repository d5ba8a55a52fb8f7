//! Where an object is in a pack: `.idx` files, version 2 (`gitformat-pack(5)`).

use std::sync::Arc;

use futures_util::future::join3;

use super::sorted_ids::{FANOUT_LEN, SortedIds, guess};
use super::{fetch_around, number_at, read};
use crate::segment::{ReadError, Segment};

const HEADER_LEN: usize = 8;
/// Where the ids start.
const IDS_AT: u64 = (HEADER_LEN + FANOUT_LEN) as u64;

/// Fetches what git reads to find the object `oid` in `index`; gives its offset in the pack, if it
/// is there.
pub(super) async fn find(index: &Arc<Segment>, oid: &[u8]) -> Result<Option<u64>, ReadError> {
    let id_len = oid.len() as u64;
    let ids = SortedIds {
        segment: index,
        at: IDS_AT,
        id_len,
    };
    index.fetch_front().await?;
    // After the ids come checksums and offsets of 4 bytes each; few packs have offsets of 8.
    let count = index.len().saturating_sub(IDS_AT + 2 * id_len) / (id_len + 8);
    let offset_at = |position: u64, count: u64| {
        let offsets_at = ids.id_at(count).saturating_add(count * 4);
        let at = offsets_at.saturating_add(position * 4);
        at..at.saturating_add(4)
    };
    // Need not wait for the fan-out table.
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
    // A number from 2^31 on refers to an offset of 8 bytes.
    Ok(number_at(&offset, 0).filter(|&offset| offset < 1 << 31))
}
