//! Values that are parsed from files, and parsed again when a file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::chain;

/// The shortest time between two checks whether the files have changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ReadFn<T> = Box<dyn Fn() -> Result<T, BoxError> + Send + Sync>;

/// The modification time, length and inode of a file: they tell one version from the next without
/// reading it. `None` if the file can't be looked at.
type FileStamp = Option<(SystemTime, u64, u64)>;

/// A value that is parsed from some files, and parsed again when one of them changes.
///
/// If the new content can't be used, that is logged once, and the earlier value stays in force.
pub struct Reloaded<T> {
    paths: Vec<PathBuf>,
    read: ReadFn<T>,
    state: Mutex<ReloadedState<T>>,
}

struct ReloadedState<T> {
    value: Arc<T>,
    stamps: Vec<FileStamp>,
    checked_at: Instant,
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Reloaded({:?})", self.paths)
    }
}

impl<T> Reloaded<T> {
    /// Reads the files for the first time; an error is returned to the caller. `read` reads all of
    /// `paths`.
    pub fn open<E>(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Into<BoxError>,
    {
        // The stamps come first: if a file changes between the two lines, the next check sees a
        // difference and reads again.
        let stamps = stamps(&paths);
        let value = Arc::new(read()?);
        let state = ReloadedState {
            value,
            stamps,
            checked_at: Instant::now(),
        };
        Ok(Self {
            paths,
            read: Box::new(move || read().map_err(Into::into)),
            state: Mutex::new(state),
        })
    }

    /// Returns the value of the files as they were at most one second ago.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.checked_at.elapsed() >= CHECK_INTERVAL {
            let stamps = stamps(&self.paths);
            if stamps != state.stamps {
                match (self.read)() {
                    Ok(value) => {
                        state.value = Arc::new(value);
                        info!(files = ?self.paths, "Reloaded changed files");
                    }
                    Err(error) => {
                        let error = chain(&*error);
                        warn!(
                            files = ?self.paths,
                            error,
                            "Can't use changed files; the earlier content stays in force"
                        );
                    }
                }
                // Also after a failure, so that unusable content is read and logged only once.
                state.stamps = stamps;
            }
            state.checked_at = Instant::now();
        }
        Arc::clone(&state.value)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<FileStamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> FileStamp {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
