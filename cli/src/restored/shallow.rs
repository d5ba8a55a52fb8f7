//! The file `shallow` of a clone that has only a part of the history.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::refs::{History, Refs, not_in};

/// Returns whether the clone lacks a part of the history.
pub(crate) fn is_shallow(git_dir: &Path) -> bool {
    git_dir.join("shallow").is_file()
}

/// Tells git that the parents of `commit` are missing.
pub(crate) fn add(git_dir: &Path, commit: &str) -> Result<()> {
    let path = git_dir.join("shallow");
    let mut commits = read(&path)?;
    if !commits.iter().any(|known| known == commit) {
        commits.push(commit.to_owned());
        write(&path, &commits)?;
    }
    Ok(())
}

/// Tells git that the history of all refs is complete. Commits that none of `refs` reaches may
/// still lack parents.
pub(super) async fn complete(directory: &Path, git_dir: &Path, refs: &Refs) -> Result<()> {
    let path = git_dir.join("shallow");
    let commits = read(&path)?;
    // The oldest of several can be reached only through the newer ones. The search fails at a
    // commit that no ref reaches, because its parents are missing.
    let unreached = match not_in(directory, commits.iter(), refs, History::Complete).await {
        Ok(unreached) => unreached,
        Err(_) => not_in(directory, commits.iter(), refs, History::AsKnown).await?,
    };
    let unreached: Vec<_> = unreached.into_iter().collect();
    if !unreached.is_empty() {
        return write(&path, &unreached);
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<String>> {
    let content = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        content => content.with_context(|| format!("can't read {}", path.display()))?,
    };
    Ok(content.lines().map(str::to_owned).collect())
}

/// Replaces the file in one step, with git's lock.
fn write(path: &Path, commits: &[String]) -> Result<()> {
    let lock = path.with_extension("lock");
    let write = || {
        let mut file = File::create_new(&lock)?;
        for commit in commits {
            writeln!(file, "{commit}")?;
        }
        fs::rename(&lock, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}
