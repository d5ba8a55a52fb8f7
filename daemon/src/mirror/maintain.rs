//! Keeps a mirror fast to serve: few packs, and bitmaps of what commits reach.

use std::path::Path;
use std::time::Duration;

use tracing::warn;

use super::{Git, GitCommand, GitError, MirrorError};
use crate::MirrorsConfig;
use crate::config::GitConfig;
use crate::error_chain::chain;

/// With so many times `repack_packs` packs, a mirror is not left alone any longer.
const TOO_MANY: usize = 5;

/// What there is to do for a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// Roll the small packs up, and index all.
    RollUp,
    /// Write the index over all packs and its bitmaps, as there is none.
    Index,
}

/// What there is to do for `mirror`; `last` is how long ago its packs were rolled up.
pub(crate) fn upkeep(
    mirror: &Path,
    config: &MirrorsConfig,
    last: Option<Duration>,
) -> Result<Option<Upkeep>, MirrorError> {
    let packs = count_packs(mirror)?;
    let is_early = last.is_some_and(|last| last < config.repack_interval);
    let limit = if is_early {
        config.repack_packs.saturating_mul(TOO_MANY)
    } else {
        config.repack_packs
    };
    Ok(if packs > limit {
        Some(Upkeep::RollUp)
    } else if packs > 0 && !mirror.join("objects/pack/multi-pack-index").exists() {
        Some(Upkeep::Index)
    } else {
        None
    })
}

/// Keeps unreachable objects; never run beside a publish or an update.
///
/// With bitmaps, `git upload-pack` needs not walk the history for a clone: for git's own repository
/// (420,000 objects in 318 MB) 0.7 s of CPU time in place of 5.3 s. They need not be up to date: what
/// came since is walked.
pub(crate) fn maintain(
    git: &Git,
    mirror: &Path,
    upkeep: Upkeep,
    config: &GitConfig,
) -> Result<(), MirrorError> {
    let command = |subcommand: &str, arguments: &[&str]| {
        git.in_repository(mirror, subcommand)
            .config("pack.threads", config.pack_threads)
            .config("pack.windowMemory", &config.pack_window_memory)
            // git before 2.54 dies of version 2.
            .config("midx.version", 1)
            .args(arguments)
            .time_limit(config.pack_timeout)
    };
    match upkeep {
        Upkeep::RollUp => {
            let roll_up = ["--geometric=2", "-d", "-q", "--write-midx"];
            let with_bitmaps = [&roll_up[..], &["--write-bitmap-index"]].concat();
            or_without_bitmaps(command("repack", &with_bitmaps), || {
                command("repack", &roll_up)
            })?;
        }
        Upkeep::Index => {
            let index = ["write", "--no-progress"];
            or_without_bitmaps(
                command("multi-pack-index", &["write", "--no-progress", "--bitmap"]),
                || command("multi-pack-index", &index),
            )?;
        }
    }
    Ok(())
}

/// Runs a command that writes bitmaps, or one that doesn't: a history that isn't whole has none.
fn or_without_bitmaps(
    with: GitCommand,
    without: impl FnOnce() -> GitCommand,
) -> Result<(), GitError> {
    match with.effect() {
        Err(error @ GitError::Failed { .. }) => {
            warn!(error = chain(&error), "A mirror gets no bitmaps");
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
