//! Takes over what another daemon published and upstream dropped before this one saw it.

use std::io::{self, Write as _};
use std::path::Path;

use cachewfs_format::{Manifest, ObjectId, PackKind, PublishedFile};
use tracing::{info, warn};

use super::PublishError;
use super::retain::oid_lines;
use crate::error_chain::chain;
use crate::mirror::{Git, GitError};
use crate::store::Store;

/// Copies packs of `previous` into the mirror until it has all that `missing`, tips of it, need. What
/// can't be read is lost by the next layout from scratch, and no reason not to publish.
pub(super) fn take_over(
    git: &Git,
    store: &Store,
    mirror: &Path,
    (previous, missing): (&Manifest, &[ObjectId]),
) -> Result<(), PublishError> {
    let repo = &previous.repo;
    // What is new to this mirror is most likely in an increment.
    let (increments, others): (Vec<_>, Vec<_>) = previous
        .packs
        .iter()
        .partition(|pack| pack.kind == PackKind::Increment);
    for pack in increments.into_iter().chain(others) {
        // A pack is there once its index is.
        for file in [&pack.pack, &pack.reverse_index, &pack.index] {
            match copy(store, (previous, file), mirror) {
                Err(PublishError::Store(error)) => {
                    let error = chain(&error);
                    warn!(%repo, error, "What upstream dropped of {repo} can't be taken over");
                    return Ok(());
                }
                copied => copied?,
            }
        }
        if has_all(git, mirror, missing)? {
            let tips = missing.len();
            info!(%repo, tips, "Took over what another daemon published of {repo}");
            return Ok(());
        }
    }
    Ok(())
}

/// Copies a file, each chunk verified; it appears whole or not at all.
fn copy(
    store: &Store,
    (previous, file): (&Manifest, &PublishedFile),
    mirror: &Path,
) -> Result<(), PublishError> {
    let directory = mirror.join("objects/pack");
    let path = directory.join(&file.name);
    // The manifest sees to it that this is a name, not a path.
    if path.exists() || !file.name.starts_with("pack-") {
        return Ok(());
    }
    let failed = PublishError::at(&path);
    // What is left of it is swept with what git leaves.
    let staging = tempfile::Builder::new()
        .prefix("tmp_")
        .tempfile_in(&directory);
    let mut to = staging.map_err(PublishError::at(&directory))?;
    store.copy_content(&previous.repo, file, (file.size, &mut to))?;
    let finish = || -> io::Result<()> {
        to.flush()?;
        to.as_file().sync_all()?;
        to.persist(&path)?;
        Ok(())
    };
    finish().map_err(failed)
}

/// Whether `tips` and all that they need are there.
fn has_all(git: &Git, mirror: &Path, tips: &[ObjectId]) -> Result<bool, PublishError> {
    let walked = git
        .in_repository(mirror, "rev-list")
        .args(["--objects", "--quiet", "--stdin", "--not", "--all"])
        .input(oid_lines(tips))
        .effect();
    match walked {
        Err(GitError::Failed { .. }) => Ok(false),
        walked => Ok(walked.map(|()| true)?),
    }
}
