//! Copies LFS objects from an upstream that is a directory on this machine.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{LfsFetchError, LfsObject};
use crate::mirror::probe::git_directories;

/// Copies the objects in `wanted` that the repository at `upstream` has into `directory`.
pub(super) fn copy(
    upstream: &Path,
    (directory, wanted): (&Path, &[LfsObject]),
) -> Result<(), LfsFetchError> {
    let mut places = git_directories(upstream);
    let Some(upstream) = places.find(|place| place.join("HEAD").is_file()) else {
        return Ok(());
    };
    for object in wanted {
        let from = upstream.join(&object.path);
        if !from.is_file() {
            continue;
        }
        let unreadable = LfsFetchError::at(&from);
        let from = File::open(&from).map_err(unreadable)?;
        let path = directory.join(&object.path);
        let mut to = File::create(&path).map_err(LfsFetchError::at(&path))?;
        // One byte more than the size, so that a longer file is noticed when the copy is verified.
        let mut from = from.take(object.size.saturating_add(1));
        std::io::copy(&mut from, &mut to).map_err(LfsFetchError::at(&path))?;
    }
    Ok(())
}
