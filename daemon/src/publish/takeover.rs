//! Takes over objects that another daemon published and that this daemon's mirror never had.
//!
//! Upstream dropped them before this daemon fetched. The next layout from scratch is made from the
//! mirror, so without a takeover it would lose them.

use std::io::{self, Write as _};
use std::path::Path;

use cachewfs_format::{Manifest, ObjectId, PackKind, PublishedFile};
use tracing::{info, warn};

use super::PublishError;
use super::retain::oid_lines;
use crate::base::chain;
use crate::mirror::{Git, GitError};
use crate::store::{Store, wait};

/// Copies packs of `previous` into the mirror until it has everything that the tips `missing` need.
///
/// If a pack can't be read, the takeover ends with a warning: upstream's present state is worth
/// more than old objects, so the publish goes on.
pub(super) fn take_over(
    git: &Git,
    store: &Store,
    mirror: &Path,
    (previous, missing): (&Manifest, &[ObjectId]),
) -> Result<(), PublishError> {
    let repo = &previous.repo;
    // Objects that are new to this mirror are most likely in an increment, and increments are
    // short.
    let (increments, others): (Vec<_>, Vec<_>) = previous
        .packs
        .iter()
        .partition(|pack| pack.kind == PackKind::Increment);
    for pack in increments.into_iter().chain(others) {
        // The index comes last: git sees a pack as soon as its index is there.
        for file in [&pack.pack, &pack.reverse_index, &pack.index] {
            match copy(store, (previous, file), mirror) {
                Err(PublishError::Store(error)) => {
                    let error = chain(&error);
                    warn!(
                        %repo, error,
                        "Can't take over published objects of {repo} that upstream dropped"
                    );
                    return Ok(());
                }
                copied => copied?,
            }
        }
        if has_all(git, mirror, missing)? {
            let tips = missing.len();
            info!(%repo, tips, "Took over objects of {repo} that another daemon published");
            return Ok(());
        }
    }
    Ok(())
}

/// Copies a file into the mirror and verifies each chunk. The file appears whole or not at all.
fn copy(
    store: &Store,
    (previous, file): (&Manifest, &PublishedFile),
    mirror: &Path,
) -> Result<(), PublishError> {
    let directory = mirror.join("objects/pack");
    let path = directory.join(&file.name);
    // The parser of manifests has checked that this is a name, not a path.
    if path.exists() || !file.name.starts_with("pack-") {
        return Ok(());
    }
    let failed = PublishError::at(&path);
    // Git gives its own temporary files this prefix. After a crash, both are swept together.
    let staging = tempfile::Builder::new()
        .prefix("tmp_")
        .tempfile_in(&directory);
    let mut to = staging.map_err(PublishError::at(&directory))?;
    wait(store.copy_content(&previous.repo, file, (file.size, &mut to)))?;
    let finish = || -> io::Result<()> {
        to.flush()?;
        to.as_file().sync_all()?;
        to.persist(&path)?;
        Ok(())
    };
    finish().map_err(failed)
}

/// Returns whether the mirror has `tips` and all objects that they need.
fn has_all(git: &Git, mirror: &Path, tips: &[ObjectId]) -> Result<bool, PublishError> {
    let walked = git
        .in_repository(mirror, "rev-list")
        .args(["--objects", "--quiet", "--stdin", "--not", "--all"])
        .input(oid_lines(tips))
        .effect();
    match walked {
        // Git fails if it meets a missing object, so this failure is an answer.
        Err(GitError::Failed { .. }) => Ok(false),
        walked => Ok(walked.map(|()| true)?),
    }
}
