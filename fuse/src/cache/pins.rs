//! Reads and writes pins: one file for each pinned repository, with one segment id on each line.
//!
//! Segments in these files are never evicted. All mounts that share the cache obey all pins.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cachewfs_format::{Digest, RepoName, SegmentId};

use super::staged;

fn directory(root: &Path) -> PathBuf {
    root.join("pins")
}

/// Replaces `/` by `%`: a file name can't contain `/`, and a repository's name can't contain `%`.
fn file_name(repo: &RepoName) -> String {
    repo.as_str().replace('/', "%")
}

/// Writes the pin of `repo`, and replaces an older pin of it.
pub(super) fn write(root: &Path, repo: &RepoName, segments: &[SegmentId]) -> io::Result<()> {
    let directory = directory(root);
    fs::create_dir_all(&directory)?;
    let mut staged = staged::create(&directory)?;
    for id in segments {
        writeln!(staged, "{id}")?;
    }
    // Unlike chunks, a pin has no checksum. If a crash left an empty file after the rename,
    // eviction would take the segments of a pinned repository.
    staged.as_file().sync_all()?;
    staged
        .persist(directory.join(file_name(repo)))
        .map_err(|error| error.error)?;
    Ok(())
}

/// Removes the pin of `repo`. Returns whether there was one.
pub(super) fn remove(root: &Path, repo: &RepoName) -> io::Result<bool> {
    match fs::remove_file(directory(root).join(file_name(repo))) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the pinned repositories.
pub(super) fn repos(root: &Path) -> io::Result<Vec<RepoName>> {
    let names = match fs::read_dir(directory(root)) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut repos = Vec::new();
    for name in names {
        let name = name?.file_name().to_string_lossy().replace('%', "/");
        repos.extend(RepoName::parse(&name));
    }
    Ok(repos)
}

/// Returns the segments of all pinned repositories.
pub(super) fn read_all(root: &Path) -> io::Result<HashSet<SegmentId>> {
    read(root, |_| true)
}

/// Returns the segments of all pinned repositories except `repo`.
pub(super) fn read_others(root: &Path, repo: &RepoName) -> io::Result<HashSet<SegmentId>> {
    read(root, |pinned| pinned != repo)
}

fn read(root: &Path, includes: impl Fn(&RepoName) -> bool) -> io::Result<HashSet<SegmentId>> {
    let mut pinned = HashSet::new();
    for repo in repos(root)?.into_iter().filter(includes) {
        let text = fs::read_to_string(directory(root).join(file_name(&repo)))?;
        pinned.extend(
            text.lines()
                .filter_map(|line| Digest::parse(line).ok())
                .map(SegmentId),
        );
    }
    Ok(pinned)
}
