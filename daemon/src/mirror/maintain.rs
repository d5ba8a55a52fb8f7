//! Keeps the number of a mirror's own packs small.

use std::path::Path;

use super::{Git, MirrorError};
use crate::config::GitConfig;

/// Each update leaves a pack; with more than these, looking up an object gets slow.
const MAX_PACKS: usize = 40;

/// Rolls the small packs of `mirror` up, if there are many. Keeps unreachable objects; never run
/// beside a publish.
pub(crate) fn maintain(git: &Git, mirror: &Path, config: &GitConfig) -> Result<(), MirrorError> {
    let directory = mirror.join("objects/pack");
    let packs = std::fs::read_dir(&directory)
        .map_err(|source| MirrorError::Io {
            path: directory.clone(),
            source,
        })?
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "pack")
        })
        .count();
    if packs <= MAX_PACKS {
        return Ok(());
    }
    git.in_repository(mirror, "repack")
        .config("pack.threads", config.pack_threads)
        .config("pack.windowMemory", &config.pack_window_memory)
        .args(["--geometric=2", "-d", "-q"])
        .time_limit(config.pack_timeout)
        .effect()?;
    Ok(())
}
