//! Creates files below a directory, and follows no symbolic link on the way.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, futimens, linkat, mkdirat, open,
    openat, utimensat,
};
use rustix::io::Errno;

/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a file of the cache becomes a file of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// As a second name of it, where the filesystem can. The cache is removed soon.
    Link,
    /// As a copy, which shares its blocks where the filesystem can. Others use the cache, and a
    /// person who edits a file must not change it.
    Copy,
}

/// A writer of files below one directory. Paths have been checked by the format: no component is
/// `.` or `..`.
///
/// It keeps the directory of the last file open. The next file is most often in it.
#[derive(Debug)]
pub(super) struct TreeWriter {
    root: OwnedFd,
    /// The directories from the root to that of the last file, each with its name.
    open: Vec<(Vec<u8>, OwnedFd)>,
}

impl TreeWriter {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: open(root, DIRECTORY, Mode::empty())?,
            open: Vec::new(),
        })
    }

    /// Writes a new file in one piece.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        mtime: i64,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o666))?);
        write(&mut file)?;
        file.flush()?;
        // Last: a write changes the time.
        Ok(futimens(&file, &times(mtime))?)
    }

    /// Makes a file of the cache's file `from`.
    pub(super) fn take(
        &mut self,
        path: &[u8],
        mtime: i64,
        (from, taking): (&Path, Taking),
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if taking == Taking::Link {
            match linkat(CWD, from, parent, name, AtFlags::empty()) {
                Ok(()) => {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    return Ok(utimensat(parent, name, &times(mtime), flags)?);
                }
                Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
                // Another filesystem, or one without hard links.
                Err(_) => {}
            }
        }
        let mut source = File::open(from)?;
        self.file(path, mtime, |file| io::copy(&mut source, file).map(drop))
    }

    /// Opens the directory of `path`, and creates it if need be. Returns it with the file's name.
    fn parent<'a>(&mut self, path: &'a [u8]) -> io::Result<(&OwnedFd, &'a OsStr)> {
        let mut components: Vec<_> = path.split(|&byte| byte == b'/').collect();
        let name = components.pop().unwrap_or_default();
        let shared = self
            .open
            .iter()
            .zip(&components)
            .take_while(|((open, _), wanted)| open == *wanted)
            .count();
        self.open.truncate(shared);
        for component in components.into_iter().skip(shared) {
            let parent = self.open.last().map_or(&self.root, |(_, open)| open);
            let name = OsStr::from_bytes(component);
            match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            // Fails if a symbolic link is there.
            let opened = openat(parent, name, DIRECTORY, Mode::empty())?;
            self.open.push((component.to_vec(), opened));
        }
        let parent = self.open.last().map_or(&self.root, |(_, open)| open);
        Ok((parent, OsStr::from_bytes(name)))
    }
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime,
            tv_nsec: 0,
        },
    }
}

/// Returns the path of an archive below `root`, for messages and for files that are linked whole.
pub(super) fn below(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_symbolic_link_is_followed_and_no_file_replaced() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut tree = TreeWriter::open(root.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("a")).unwrap();
        let write = |file: &mut File| file.write_all(b"x");

        for path in [&b"a/b"[..], b"a", b"a/b/c"] {
            assert!(tree.file(path, 1, write).is_err(), "{path:?}");
        }
        assert_eq!(outside.path().read_dir().unwrap().count(), 0);

        tree.file(b"d/e/f", 1, write).unwrap();
        tree.file(b"d/g", 1, write).unwrap();
        assert!(tree.file(b"d/g", 1, write).is_err());
        assert_eq!(std::fs::read(below(root.path(), b"d/e/f")).unwrap(), b"x");
    }
}
