//! Files whose content is parsed and kept, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use crate::error_chain::chain;

/// So often, at most, is checked_at whether the files have changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ReadFn<T> = Box<dyn Fn() -> Result<T, BoxError> + Send + Sync>;

/// What tells one content of a file from the next, without reading it.
type FileStamp = Option<(SystemTime, u64, u64)>;

/// What was made of some files, and is made anew when one of them changes.
///
/// A change that can't be used is logged once, and what was there before stays.
pub(crate) struct Reloaded<T> {
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
    /// Reads for the first time, which has to succeed. `read` reads all of `paths`.
    pub(crate) fn open<E>(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Into<BoxError>,
    {
        // Before reading: a change in between is seen at the next look.
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

    /// What the files say, at most a second late.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked_at.elapsed() >= CHECK_INTERVAL {
            let stamps = stamps(&self.paths);
            if stamps != state.stamps {
                match (self.read)() {
                    Ok(value) => {
                        state.value = Arc::new(value);
                        info!(files = ?self.paths, "Read again what has changed");
                    }
                    Err(error) => {
                        let error = chain(&*error);
                        warn!(files = ?self.paths, error, "A change can't be used; what was there before stays");
                    }
                }
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
