//! The JSON of objects in the store: an error names the object.

use super::StoreError;
use super::key::Key;

/// Parses the object at `key`.
pub(super) fn parse<T>(
    key: &Key,
    bytes: &[u8],
    parse: fn(&[u8]) -> cachewfs_format::Result<T>,
) -> Result<T, StoreError> {
    parse(bytes).map_err(|source| StoreError::Unreadable {
        key: key.boxed(),
        source,
    })
}

/// Returns the bytes of the object that goes to `key`.
pub(super) fn encode(
    key: &Key,
    json: cachewfs_format::Result<Vec<u8>>,
) -> Result<Vec<u8>, StoreError> {
    json.map_err(|source| StoreError::Encode {
        key: key.boxed(),
        source,
    })
}
