//! Finds the mounts of this machine in the mount table, and the place of a path in them.
//!
//! A dead mount fails every access, and one whose process is stopped never answers. So nothing here
//! looks at a path below a mount point: paths are compared with the mount table.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_fuse::{TableEntry, mount_table};

use crate::error::CliError;

/// At most this many symbolic links are followed in a path, as by the kernel.
const MAX_LINKS: usize = 40;

/// The entries of the mount table that show cachewfs mounts, oldest first.
#[derive(Debug)]
pub(crate) struct MountTable(Vec<TableEntry>);

/// A path in a mount, or in a bind mount of a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the mount itself is, or the bind mount if only that is visible.
    pub(crate) mount_point: PathBuf,
    /// The path from the root of the mount on.
    pub(crate) below: PathBuf,
    /// The path on this machine, without symbolic links above the mount.
    pub(crate) visible: PathBuf,
    /// Where the mount, or its part, is visible in `visible`.
    pub(crate) visible_root: PathBuf,
}

impl MountTable {
    pub(crate) fn read() -> Result<Self> {
        let entries = mount_table().context("can't read the mount table")?;
        Ok(Self(entries))
    }

    /// Returns the mounts themselves, without bind mounts of them.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &TableEntry> {
        let is_mount = |entry: &&TableEntry| self.original(entry) == Some(entry);
        self.0.iter().filter(is_mount)
    }

    /// Returns the mount points of the mounts that this user may use: the user's own and root's if
    /// there are any, or else all. Otherwise another user's mount would make each command without
    /// --mount fail as ambiguous, or would be chosen.
    pub(crate) fn points_for_this_user(&self) -> Vec<PathBuf> {
        let mut mounts: Vec<_> = self.mounts().collect();
        if mounts.iter().any(|mount| is_ours(mount)) {
            mounts.retain(|mount| is_ours(mount));
        }
        let mut points: Vec<PathBuf> = Vec::new();
        for mount in mounts {
            // The last of several mounts at one mount point hides the others.
            if !points.contains(&mount.mount_point) {
                points.push(mount.mount_point.clone());
            }
        }
        points
    }

    /// Returns the mount of which `entry` shows a part or all, or `None` if this process can't see
    /// it: a container may have only the bind mount.
    pub(crate) fn original(&self, entry: &TableEntry) -> Option<&TableEntry> {
        let mut same = self.0.iter().filter(|other| other.device == entry.device);
        same.find(|other| other.is_whole())
    }

    /// Returns the entry that is visible at `point`. It hides earlier ones there.
    pub(crate) fn at(&self, point: &Path) -> Option<&TableEntry> {
        self.0.iter().rfind(|entry| entry.mount_point == point)
    }

    /// Returns the entry that contains `path`.
    pub(crate) fn around(&self, path: &Path) -> Option<&TableEntry> {
        let containing = self
            .0
            .iter()
            .filter(|entry| path.starts_with(&entry.mount_point));
        containing.max_by_key(|entry| entry.mount_point.as_os_str().len())
    }

    /// Returns the mount point of the mount that contains `path`, also through a bind mount.
    pub(crate) fn mount_around(&self, path: &Path) -> Option<PathBuf> {
        let mount = self.original(self.around(path)?)?;
        Some(mount.mount_point.clone())
    }

    /// Returns the place of `path` in a mount, or `None` if it is in none. `path` may be relative,
    /// and need not exist.
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        let path = self.follow_links(&absolute(path));
        let entry = self.around(&path)?;
        let below_entry = path.strip_prefix(&entry.mount_point).ok()?;
        let root = entry.root.strip_prefix("/").unwrap_or(&entry.root);
        // Older clones borrow from a directory that shows the repositories a second time.
        let below = root.join(below_entry);
        let below = below.strip_prefix(".objects").unwrap_or(&below).to_owned();
        let mount = self.original(entry).unwrap_or(entry);
        Some(Place {
            mount_point: mount.mount_point.clone(),
            below,
            visible_root: entry.mount_point.clone(),
            visible: path,
        })
    }

    /// Follows the symbolic links in `path`, but none in a mount.
    fn follow_links(&self, path: &Path) -> PathBuf {
        let reversed = |path: &Path| -> Vec<OsString> {
            let parts = path.components().rev();
            parts.map(|part| part.as_os_str().to_owned()).collect()
        };
        let mut rest = reversed(path);
        let mut followed = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.to_str() {
                Some(".") => continue,
                Some("..") => {
                    followed.pop();
                    continue;
                }
                _ => {}
            }
            // Joining `/` starts again at the root.
            followed.push(part);
            if self.around(&followed).is_none()
                && links < MAX_LINKS
                && let Ok(target) = std::fs::read_link(&followed)
            {
                links += 1;
                followed.pop();
                rest.extend(reversed(&target));
            }
        }
        followed
    }
}

/// Returns whether a mount belongs to this user or to root. Mounts of other users may refuse this
/// user's commands.
pub(crate) fn is_ours(entry: &TableEntry) -> bool {
    let me = rustix::process::geteuid().as_raw();
    entry.uid.is_none_or(|uid| uid == 0 || uid == me)
}

/// Returns the mount points in the mount table. A mount that hides the one before it, at the same
/// mount point, adds no second entry; bind mounts add none.
pub(crate) fn mount_points() -> Result<Vec<PathBuf>> {
    let mounts = mounts_with_owners()?.into_iter();
    let mut points: Vec<_> = mounts.map(|(mount_point, _)| mount_point).collect();
    points.dedup();
    Ok(points)
}

/// Returns the mounts in the mount table, each with the user who mounted it if the options name
/// one. Bind mounts add none.
pub(crate) fn mounts_with_owners() -> Result<Vec<(PathBuf, Option<u32>)>> {
    let table = MountTable::read()?;
    let mounts = table.mounts();
    Ok(mounts
        .map(|entry| (entry.mount_point.clone(), entry.uid))
        .collect())
}

/// Returns whether `path` is in a cachewfs mount or in a bind mount of one.
pub(crate) fn is_mounted(path: &Path) -> Result<bool> {
    Ok(MountTable::read()?.around(path).is_some())
}

/// Fails if a bind mount of a cachewfs mount is at `point`.
pub(crate) fn check_not_bound(point: &Path) -> Result<()> {
    let table = MountTable::read()?;
    match table.at(point) {
        Some(entry) if table.original(entry) != Some(entry) => Err(CliError::BindMount {
            mount_point: point.display().to_string(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Makes a path absolute.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    // `canonicalize` would access the path, which fails below a dead mount.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use cachewfs_fuse::DeviceNumber;

    use super::*;

    fn entry(point: &str, uid: Option<u32>, device: &str, root: &str) -> TableEntry {
        TableEntry {
            mount_point: point.into(),
            uid,
            device: DeviceNumber(device.to_owned()),
            root: root.into(),
            source: String::new(),
        }
    }

    #[test]
    fn a_bind_mount_is_no_mount_of_its_own() {
        let table = MountTable(vec![
            entry("/a b", Some(7), "0:40", "/"),
            entry("/c", None, "0:41", "/"),
            entry("/e", Some(7), "0:40", "/host"),
            entry("/c/f", None, "0:41", "/"),
            entry("/g", None, "0:43", "/host/repo"),
        ]);

        let mounts: Vec<_> = table
            .mounts()
            .map(|entry| (&*entry.mount_point, entry.uid))
            .collect();
        assert_eq!(
            mounts,
            [(Path::new("/a b"), Some(7)), (Path::new("/c"), None)]
        );
        let original = |path: &str| {
            let entry = table.around(Path::new(path)).unwrap();
            table
                .original(entry)
                .map(|entry| entry.mount_point.to_str().unwrap())
        };
        assert_eq!(original("/e/file"), Some("/a b"));
        assert_eq!(original("/c/f/host"), Some("/c"));
        assert_eq!(original("/g"), None);
    }

    #[test]
    fn a_path_is_found_in_a_mount_without_a_look_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        // No mount is there, so each look below it would show the link.
        let mount = top.join("mnt");
        std::fs::create_dir_all(&mount).unwrap();
        std::os::unix::fs::symlink("/nowhere", mount.join("host")).unwrap();
        std::os::unix::fs::symlink("mnt/host", top.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", top.join("loop")).unwrap();
        let table = MountTable(vec![
            entry(mount.to_str().unwrap(), None, "0:40", "/"),
            entry("/bound", None, "0:40", "/host/org"),
        ]);

        let below = |path: &Path| {
            let place = table.place(path)?;
            assert_eq!(place.mount_point, mount);
            Some(place.below.to_str().unwrap().to_owned())
        };

        for (path, expected) in [
            (top.join("mnt/host/org/repo/"), "host/org/repo"),
            (top.join("link/org/repo"), "host/org/repo"),
            (top.join("x/../mnt/host/a/../b"), "host/b"),
            ("/bound/repo/src".into(), "host/org/repo/src"),
            (mount.clone(), ""),
        ] {
            assert_eq!(below(&path).as_deref(), Some(expected), "{path:?}");
        }
        for path in ["mnt/../x", "loop/x", "mnt2/host"] {
            assert_eq!(below(&top.join(path)), None, "{path}");
        }
    }
}
