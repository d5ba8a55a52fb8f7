//! Finds the local copies on disk that earlier runs of the daemon left, by their names and lengths.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use cachewfs_format::RepoName;
use tracing::warn;

use crate::TierError;
use crate::directory::Directory;
use crate::key::{Key, Shelf, ShelfPart};

/// When a copy was last used, its key and its length.
pub(super) type FoundCopy = (SystemTime, Key, u64);

/// Returns all copies, the most recently used first. Blocks.
pub(super) fn find_copies(local: &Directory) -> Vec<FoundCopy> {
    let mut found = Vec::new();
    find(local, &local.root.join("v1"), &mut found);
    found.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
    found
}

/// Searches a directory and the ones in it. Treats unreadable ones as empty.
fn find(local: &Directory, directory: &Path, found: &mut Vec<FoundCopy>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = path.strip_prefix(local.root.join("v1")).unwrap_or(&path);
        let repo = name.to_str().and_then(|name| name.strip_suffix(".git"));
        match repo.map(RepoName::parse) {
            Some(Ok(repo)) => {
                for shelf in [Shelf::of_snapshots(&repo), Shelf::of_lfs(&repo)] {
                    if let Err(error) = find_of(local, &shelf, found) {
                        warn!(%repo, %error, "Can't search for local copies on disk");
                    }
                }
            }
            _ => find(local, &path, found),
        }
    }
}

fn find_of(local: &Directory, shelf: &Shelf, found: &mut Vec<FoundCopy>) -> Result<(), TierError> {
    for part in [ShelfPart::Manifests, ShelfPart::Segments] {
        for listed in local.list(shelf, part)? {
            let key = Key::new(shelf, listed.object);
            // Linux updates the access time at least once a day (relatime), so it tells roughly
            // when a copy was last read.
            let read = fs::metadata(local.path(&key)).and_then(|metadata| metadata.accessed());
            let used = read.map_or(listed.stat.stored_at, |read| {
                read.max(listed.stat.stored_at)
            });
            found.push((used, key, listed.stat.len));
        }
    }
    Ok(())
}
