//! [`Entries`]: the entries in the bytes of an index.

use super::IndexEntry;

/// A view of the entries of an index.
#[derive(Clone, Copy)]
pub(super) struct Entries<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) id_len: usize,
    /// The offset of each entry in `bytes`, in the order of the paths.
    pub(super) offsets: &'a [u32],
}

impl<'a> Entries<'a> {
    pub(super) fn get(&self, number: usize) -> Option<IndexEntry<'a>> {
        let offset = usize::try_from(*self.offsets.get(number)?).ok()?;
        IndexEntry::at(self.bytes, offset, self.id_len)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = IndexEntry<'a>> {
        (0..self.offsets.len()).filter_map(move |number| self.get(number))
    }
}
