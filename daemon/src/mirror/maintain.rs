//! Keeps a mirror fast to serve: few packs, and bitmaps of the objects that commits reach.

use std::path::Path;
use std::time::Duration;

use tracing::warn;

use super::{Git, GitCommand, GitConfig, GitError, MirrorError, MirrorsConfig, PACK_WINDOW_MEMORY};
use crate::base::chain;

/// With this many times `repack_packs` packs, a mirror is repacked before `repack_interval` is
/// over.
const TOO_MANY: usize = 5;

/// The maintenance that a mirror needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maintenance {
    /// Combine the small packs into larger ones, and write the index over all packs.
    RollUp,
    /// Write the index over all packs and its bitmaps, because the mirror has none.
    Index,
}

/// Returns the maintenance that `mirror` needs, if any. `last` is how long ago its packs were
/// combined.
pub(crate) fn needed_maintenance(
    mirror: &Path,
    config: &MirrorsConfig,
    last: Option<Duration>,
) -> Result<Option<Maintenance>, MirrorError> {
    let packs = count_packs(mirror)?;
    // Repacking reads and writes whole packs, so it has an interval. But each fetch adds a pack,
    // and git looks an object up in one pack after another: with very many packs, waiting for the
    // interval costs more than repacking early.
    let is_early = last.is_some_and(|last| last < config.repack_interval);
    let limit = if is_early {
        config.repack_packs.saturating_mul(TOO_MANY)
    } else {
        config.repack_packs
    };
    Ok(if packs > limit {
        Some(Maintenance::RollUp)
    } else if packs > 0 && !mirror.join("objects/pack/multi-pack-index").exists() {
        Some(Maintenance::Index)
    } else {
        None
    })
}

/// Does the maintenance. Only the mirror's writer may call this, never beside a publish or an
/// update. Unreachable objects are kept.
///
/// With bitmaps, `git upload-pack` need not walk the history for a clone. For git's own repository
/// (420,000 objects in 318 MB) that takes 0.7 s of CPU time instead of 5.3 s. Bitmaps may be out of
/// date: git walks only the commits that came later.
pub(crate) fn maintain(
    git: &Git,
    mirror: &Path,
    maintenance: Maintenance,
    config: &GitConfig,
) -> Result<(), MirrorError> {
    let command = |subcommand: &str, arguments: &[&str]| {
        git.in_repository(mirror, subcommand)
            .config("pack.threads", config.pack_threads)
            .config("pack.windowMemory", PACK_WINDOW_MEMORY)
            // git before 2.54 crashes on version 2 of the index over all packs.
            .config("midx.version", 1)
            .args(arguments)
            .time_limit(config.pack_timeout)
    };
    match maintenance {
        Maintenance::RollUp => {
            let roll_up = ["--geometric=2", "-d", "-q", "--write-midx"];
            let with_bitmaps = [&roll_up[..], &["--write-bitmap-index"]].concat();
            or_without_bitmaps(command("repack", &with_bitmaps), || {
                command("repack", &roll_up)
            })?;
        }
        Maintenance::Index => {
            let index = ["write", "--no-progress"];
            or_without_bitmaps(
                command("multi-pack-index", &["write", "--no-progress", "--bitmap"]),
                || command("multi-pack-index", &index),
            )?;
        }
    }
    Ok(())
}

/// Runs `with`, which writes bitmaps. If it fails, runs the command without bitmaps: git can't
/// write them if the history is incomplete.
fn or_without_bitmaps(
    with: GitCommand,
    without: impl FnOnce() -> GitCommand,
) -> Result<(), GitError> {
    match with.effect() {
        Err(error @ GitError::Failed { .. }) => {
            warn!(
                error = chain(&error),
                "Can't write bitmaps for a mirror; continuing without them"
            );
            without().effect()
        }
        outcome => outcome,
    }
}

fn count_packs(mirror: &Path) -> Result<usize, MirrorError> {
    let directory = mirror.join("objects/pack");
    let entries = std::fs::read_dir(&directory).map_err(|source| MirrorError::Io {
        path: directory.clone(),
        source,
    })?;
    let is_pack = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "pack")
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| is_pack(&entry.path()))
        .count())
}
