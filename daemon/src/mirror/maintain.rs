//! Keeps a mirror fast to serve: few packs, and bitmaps of what commits reach.

use std::path::Path;

use tracing::warn;

use super::{Git, GitCommand, GitError, MirrorError};
use crate::config::GitConfig;
use crate::error_chain::chain;

/// Each update leaves a pack; with more than these, looking up an object gets slow.
const MAX_PACKS: usize = 40;

/// Rolls the small packs of `mirror` up, if there are many, and writes the index over all packs and
/// its bitmaps, if there is none. Keeps unreachable objects; never run beside a publish.
///
/// With bitmaps, `git upload-pack` needs not walk the history for a clone: for git's own repository
/// (420,000 objects in 318 MB) 0.7 s of CPU time in place of 5.3 s. They need not be up to date: what
/// came since is walked.
pub(crate) fn maintain(git: &Git, mirror: &Path, config: &GitConfig) -> Result<(), MirrorError> {
    let packs = count_packs(mirror)?;
    let command = |subcommand: &str, arguments: &[&str]| {
        git.in_repository(mirror, subcommand)
            .config("pack.threads", config.pack_threads)
            .config("pack.windowMemory", &config.pack_window_memory)
            .args(arguments)
            .time_limit(config.pack_timeout)
    };
    if packs > MAX_PACKS {
        let roll_up = ["--geometric=2", "-d", "-q", "--write-midx"];
        let with_bitmaps = [&roll_up[..], &["--write-bitmap-index"]].concat();
        or_without_bitmaps(command("repack", &with_bitmaps), || {
            command("repack", &roll_up)
        })?;
    } else if packs > 0 && !mirror.join("objects/pack/multi-pack-index").exists() {
        let index = ["write", "--no-progress"];
        or_without_bitmaps(
            command("multi-pack-index", &["write", "--no-progress", "--bitmap"]),
            || command("multi-pack-index", &index),
        )?;
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
