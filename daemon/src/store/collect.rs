//! Deleting snapshots that are no longer kept, and segments that no manifest names.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::time::{Duration, SystemTime};

use cachewfs_format::{Manifest, Pointer, RepoName, SegmentId, SnapshotId};

use super::{DiskStore, StoreError};

impl DiskStore {
    /// Deletes all manifests but the current and the `keep` newest, and all segments that no
    /// manifest names; nothing that was written, or current, within `grace`. Gives the number of
    /// segments deleted.
    ///
    /// The caller is the only one that publishes `repo`. The manifests go first: a crash in between
    /// leaves segments without a manifest, which the next call deletes.
    pub(crate) fn collect(
        &self,
        repo: &RepoName,
        current: &Pointer,
        (keep, grace): (usize, Duration),
    ) -> Result<usize, StoreError> {
        let mut snapshots = self.entries(repo, "snapshots")?;
        let name = current.snapshot.to_string();
        let is_current = |entry: &DirEntry| entry.file_name().as_encoded_bytes() == name.as_bytes();
        snapshots.sort_by_key(|(entry, written)| (!is_current(entry), Reverse(*written)));
        let now = SystemTime::now();
        let is_old = |written: SystemTime| now.duration_since(written).is_ok_and(|age| age > grace);
        let mut kept = Vec::new();
        for (index, (entry, written)) in snapshots.into_iter().enumerate() {
            let Ok(id) = SnapshotId::parse(&entry.file_name().to_string_lossy()) else {
                continue;
            };
            if index < keep || id == current.snapshot || !is_old(written) {
                kept.push(id);
            } else {
                fs::remove_file(entry.path()).map_err(StoreError::at(entry.path()))?;
            }
        }
        let mut named = HashSet::new();
        for id in kept {
            if let Some((manifest, _)) = self.manifest(repo, id)? {
                add_segments(&manifest, &mut named);
            }
        }
        let mut deleted = 0;
        for (entry, written) in self.entries(repo, "segments")? {
            let is_named = named.contains(&*entry.file_name().to_string_lossy());
            if !is_named && is_old(written) {
                fs::remove_file(entry.path()).map_err(StoreError::at(entry.path()))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Deletes all that is published of `repo`: first of all the pointer, so that nothing is half there.
    pub(crate) fn delete(&self, repo: &RepoName) -> Result<(), StoreError> {
        let directory = self.directory(repo);
        let pointer = directory.join("current");
        for remove in [fs::remove_file(&pointer), fs::remove_dir_all(&directory)] {
            match remove {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::at(&directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All snapshots that are kept: the current one, then those that were current last.
    pub(crate) fn newest_snapshots(&self, repo: &RepoName) -> Result<Vec<SnapshotId>, StoreError> {
        let Some(current) = self.pointer(repo)? else {
            return Ok(Vec::new());
        };
        let mut snapshots: Vec<_> = self
            .entries(repo, "snapshots")?
            .into_iter()
            .filter_map(|(entry, written)| {
                let id = SnapshotId::parse(&entry.file_name().to_string_lossy()).ok()?;
                Some((id != current.snapshot, Reverse(written), id))
            })
            .collect();
        snapshots.sort_by_key(|&(is_old, written, _)| (is_old, written));
        Ok(snapshots.into_iter().map(|(_, _, id)| id).collect())
    }

    fn entries(
        &self,
        repo: &RepoName,
        part: &str,
    ) -> Result<Vec<(DirEntry, SystemTime)>, StoreError> {
        let directory = self.directory(repo).join(part);
        let read = || {
            fs::read_dir(&directory)?
                .map(|entry| {
                    let entry = entry?;
                    let written = entry.metadata()?.modified()?;
                    Ok((entry, written))
                })
                .collect::<std::io::Result<Vec<_>>>()
        };
        read().map_err(StoreError::at(&directory))
    }
}

/// All that a manifest names, in its archives and for the next publish to use again.
fn add_segments(manifest: &Manifest, named: &mut HashSet<String>) {
    let mut add = |id: SegmentId| {
        named.insert(id.to_string());
    };
    for layout in manifest.archives.values() {
        layout
            .segments
            .iter()
            .chain([&layout.tail])
            .for_each(|segment| add(segment.id));
    }
    for pack in &manifest.packs {
        for file in [&pack.pack, &pack.index, &pack.reverse_index] {
            add(file.segment.id);
        }
    }
    for file in &manifest.commit_graphs {
        add(file.segment.id);
    }
    for run in &manifest.runs {
        let files = [
            Some(&run.work_tree),
            run.large_file.as_ref(),
            Some(&run.index_part),
        ];
        files
            .into_iter()
            .flatten()
            .for_each(|file| add(file.segment.id));
    }
}
