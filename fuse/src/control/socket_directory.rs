//! The directories of control sockets. Only the owner may write to such a directory: any other
//! writer could answer in place of a mount.
//!
//! Without `XDG_RUNTIME_DIR`, the directory is in `/tmp`, where another user may have been first.
//! So a directory is opened once, without following a link. All checks and all later calls use the
//! open directory instead of its path: whatever happens to the path in between has no effect.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

/// The directory of the sockets of root's mounts.
const SYSTEM: &str = "/run/cachewfs";
/// The directory of a user's sockets in `XDG_RUNTIME_DIR`.
const IN_RUNTIME_DIRECTORY: &str = "cachewfs";

/// Why a directory can't be used for control sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketDirectoryError {
    /// Another user owns the directory, and may have put any socket there.
    #[error("{path} belongs to another user (uid {uid})")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Its mode gives other users permissions that they must not have.
    #[error("{path} is open to other users (mode {mode:03o})")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The path is a file, or a symbolic link, which may lead anywhere.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The path of the file or link.
        path: PathBuf,
    },
    /// The directory can't be opened or created.
    #[error("can't open the directory {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// An open, checked directory of control sockets.
#[derive(Debug)]
pub(crate) struct SocketDirectory {
    directory: OwnedFd,
    path: PathBuf,
}

/// Returns the directory for the mounts of this process's user, and that user.
///
/// This is [`SYSTEM`] for root, and a directory in `XDG_RUNTIME_DIR` for other users. If that
/// variable isn't set (`su`, cron, containers), it is a directory in the one for temporary files.
pub(super) fn of_this_user() -> (PathBuf, Uid) {
    let user = geteuid();
    if user.is_root() {
        return of_root();
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let path = match runtime {
        Some(runtime) => runtime.join(IN_RUNTIME_DIRECTORY),
        None => in_temporary(&std::env::temp_dir(), user),
    };
    (path, user)
}

/// Returns the directories where a mount of this process's user may have its socket, the likeliest
/// first. A mount may have been started in another environment than this process.
pub(super) fn all_of_this_user() -> Vec<(PathBuf, Uid)> {
    let (likeliest, user) = of_this_user();
    if user.is_root() {
        return vec![of_root()];
    }
    let runtime = Path::new("/run/user").join(user.as_raw().to_string());
    let mut paths = vec![
        likeliest,
        runtime.join(IN_RUNTIME_DIRECTORY),
        in_temporary(&std::env::temp_dir(), user),
        in_temporary(Path::new("/tmp"), user),
    ];
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths.into_iter().map(|path| (path, user)).collect()
}

fn in_temporary(directory: &Path, user: Uid) -> PathBuf {
    directory.join(format!("cachewfs-{}", user.as_raw()))
}

/// Returns the directory for root's mounts, and root.
pub(super) fn of_root() -> (PathBuf, Uid) {
    (PathBuf::from(SYSTEM), Uid::ROOT)
}

impl SocketDirectory {
    /// Opens the directory at `path`, which must belong to `owner` and be closed to other users.
    pub(super) fn open(path: &Path, owner: Uid) -> Result<Self, SocketDirectoryError> {
        let sockets = Self::open_unchecked(path)?;
        sockets.check_owner(owner)?;
        sockets.check_mode(owner)?;
        Ok(sockets)
    }

    /// Opens the directory at `path`. If it doesn't exist, creates it for `owner`, the user of this
    /// process.
    pub(super) fn create(path: &Path, owner: Uid) -> Result<Self, SocketDirectoryError> {
        let of_io = |source| SocketDirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            let created = builder.recursive(true).mode(0o700).create(parent);
            created.map_err(of_io)?;
        }
        let mode = 0o777 & !forbidden_mode(owner);
        // `mkdir` doesn't follow a link at `path`, and tells whether this process made the
        // directory. The mode of a directory that was there before is checked, never changed.
        let created = match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(of_io(error.into())),
        };
        let sockets = Self::open_unchecked(path)?;
        sockets.check_owner(owner)?;
        if created {
            // The umask may have removed permissions that the owner, or root's clients, need.
            let permissions = Permissions::from_mode(mode);
            fs::set_permissions(path_of(&sockets.directory), permissions).map_err(of_io)?;
        }
        sockets.check_mode(owner)?;
        Ok(sockets)
    }

    /// Returns a path to `name` in this directory. The path is valid in this process only.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        // Through the descriptor rather than the directory's path, which may lead elsewhere by now.
        // It is also short: the path of a socket has at most 107 bytes.
        path_of(&self.directory).join(name)
    }

    /// Returns the path that this directory was opened at.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names in this directory.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(path_of(&self.directory))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }

    /// Opens the file that a mount locks while it starts. Closing it unlocks it.
    pub(crate) fn lock_file(&self) -> io::Result<File> {
        // Only its owner may open it: a lock of another user would keep mounts from starting.
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.directory, "lock", flags, mode)?.into())
    }

    /// Sets the mode of `name`, without following a symbolic link.
    pub(super) fn set_mode(&self, name: &str, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        fs::set_permissions(path_of(&file), Permissions::from_mode(mode))
    }

    fn open_unchecked(path: &Path) -> Result<Self, SocketDirectoryError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = path.to_owned();
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self { directory, path }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(SocketDirectoryError::NotADirectory { path }),
            Err(error) => {
                let source = error.into();
                Err(SocketDirectoryError::Io { path, source })
            }
        }
    }

    fn check_owner(&self, owner: Uid) -> Result<(), SocketDirectoryError> {
        let uid = self.stat()?.st_uid;
        if uid == owner.as_raw() {
            return Ok(());
        }
        let path = self.path.clone();
        Err(SocketDirectoryError::Foreign { path, uid })
    }

    fn check_mode(&self, owner: Uid) -> Result<(), SocketDirectoryError> {
        let mode = self.stat()?.st_mode & 0o777;
        if mode & forbidden_mode(owner) == 0 {
            return Ok(());
        }
        let path = self.path.clone();
        Err(SocketDirectoryError::Open { path, mode })
    }

    fn stat(&self) -> Result<rustix::fs::Stat, SocketDirectoryError> {
        rustix::fs::fstat(&self.directory).map_err(|error| SocketDirectoryError::Io {
            path: self.path.clone(),
            source: error.into(),
        })
    }
}

/// Returns the permissions that other users must not have.
fn forbidden_mode(owner: Uid) -> u32 {
    // Every user may connect to root's mounts, so root's directory may be readable, never writable.
    if owner.is_root() { 0o022 } else { 0o077 }
}

/// Returns a path that leads to an open file (`proc_pid_fd(5)`).
fn path_of(file: &OwnedFd) -> PathBuf {
    // Most calls on a descriptor refuse one that was opened with `O_PATH`. Calls on this path work.
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A user that runs no process.
    const NOBODY: u32 = 65534;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_directory_is_made_for_its_owner_alone() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("run/cachewfs-1");
        let me = geteuid();

        SocketDirectory::create(&path, me).unwrap();
        SocketDirectory::create(&path, me).unwrap();

        assert_eq!(mode_of(&path), if me.is_root() { 0o755 } else { 0o700 });
        assert!(SocketDirectory::open(&path, me).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        for opened in [
            SocketDirectory::open(&path, me),
            SocketDirectory::create(&path, me),
        ] {
            assert!(matches!(
                opened,
                Err(SocketDirectoryError::Open { mode: 0o777, .. })
            ));
        }
    }

    #[test]
    fn the_directory_of_another_user_is_refused() {
        let me = geteuid();
        if !me.is_root() {
            return;
        }
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("cachewfs-0");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(NOBODY), None).unwrap();

        for opened in [
            SocketDirectory::open(&path, me),
            SocketDirectory::create(&path, me),
        ] {
            assert!(matches!(
                opened,
                Err(SocketDirectoryError::Foreign { uid: NOBODY, .. })
            ));
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("mine")).unwrap();
        fs::set_permissions(path("mine"), Permissions::from_mode(0o700)).unwrap();
        symlink(path("mine"), path("link")).unwrap();
        let file = File::create(path("mine/.bashrc")).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        symlink(path("mine/.bashrc"), path("mine/a.sock")).unwrap();
        let me = geteuid();

        for opened in [
            SocketDirectory::open(&path("link"), me),
            SocketDirectory::create(&path("link"), me),
        ] {
            assert!(matches!(
                opened,
                Err(SocketDirectoryError::NotADirectory { .. })
            ));
        }
        let sockets = SocketDirectory::open(&path("mine"), me).unwrap();
        // Links have no mode on Linux, so this may fail. The target's mode must not change.
        sockets.set_mode("a.sock", 0o666).ok();

        assert_eq!(mode_of(&path("mine/.bashrc")), 0o600);
    }
}
