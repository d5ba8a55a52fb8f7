//! [`DataDir`]: the directory in which one daemon keeps its files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::create_private;

/// How long a start waits for the lock of a directory.
///
/// The lock may be held for a moment by a daemon that is about to end, or by a process between fork
/// and exec: it inherits all open files of its parent.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long between two tries to lock a directory.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The directory in which one daemon keeps its files.
///
/// ```text
/// lock         locked by the daemon that runs here
/// replica-id   the identity of this daemon as a holder of leases
/// config/git   the configuration of its git processes
/// mirrors      the mirrors
/// tmp          staging and temporary files; emptied at each start
/// store        the store, unless the configuration names another place
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataDir(PathBuf);

/// Why a directory can't be locked.
#[derive(Debug)]
pub enum LockError {
    /// The directory or its lock file can't be created.
    Create {
        /// The lock file.
        path: PathBuf,
        source: io::Error,
    },
    /// Another daemon has the lock.
    InUse { directory: PathBuf },
}

impl DataDir {
    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the directory of bundles, which are made again when they are missing.
    pub fn bundles(&self) -> PathBuf {
        self.tmp().join("bundles")
    }

    /// Returns the directory of git's configuration.
    pub fn git_config(&self) -> PathBuf {
        self.0.join("config/git")
    }

    /// Returns the directory of the mirrors.
    pub fn mirrors(&self) -> PathBuf {
        self.0.join("mirrors")
    }

    /// Returns the file with the identity of the daemon.
    pub fn replica_id(&self) -> PathBuf {
        self.0.join("replica-id")
    }

    /// Returns the directory of the store, if the configuration names no other.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Returns the directory of temporary files. Staging is here, so it must be on the filesystem
    /// of the mirrors, for renames.
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

impl Default for DataDir {
    fn default() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self("/var/lib/cachewfs".into());
        }
        let home = || {
            std::env::home_dir()
                .unwrap_or_default()
                .join(".local/share")
        };
        let data_home = std::env::var_os("XDG_DATA_HOME").map_or_else(home, PathBuf::from);
        Self(data_home.join("cachewfs"))
    }
}

impl From<PathBuf> for DataDir {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

/// Locks `directory`, and creates it if it is missing. While the returned file is open, no other
/// daemon works in the directory.
pub async fn lock_directory(directory: &Path) -> Result<File, LockError> {
    let path = directory.join("lock");
    let open = || {
        create_private(directory)?;
        File::create(&path)
    };
    let lock = open().map_err(|source| LockError::Create {
        path: path.clone(),
        source,
    })?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    while lock.try_lock().is_err() {
        if Instant::now() > deadline {
            let directory = directory.to_owned();
            return Err(LockError::InUse { directory });
        }
        sleep(LOCK_PAUSE).await;
    }
    Ok(lock)
}

/// Empties `tmp`, where an earlier run of the daemon may have left files, or creates it.
pub fn sweep(tmp: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(tmp)
}
