//! [`Keeper`]: keeps the holder's knowledge of a mount up to date.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;
use tracing::warn;

use crate::control::Clones;
use crate::fs::Fs;
use crate::holder::memory;
use crate::saved_state::{HandOverError, Saver, SessionState, encode};

/// At most this many inodes are kept for the next process. It finds those of the snapshots that are
/// shown by itself, and knows others only from here.
const MAX_INODES: usize = 100_000;

/// Keeps the holder's knowledge of a mount up to date.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) fs: Arc<Fs>,
    pub(crate) clones: Arc<Clones>,
    pub(crate) connection: OwnedFd,
    pub(crate) session: SessionState,
}

impl Keeper {
    /// Sends the state whenever the mount shows something else. Runs until the mount ends.
    pub(crate) async fn run(self) {
        let repositories = Arc::clone(self.fs.repositories());
        let tasks = repositories.tasks().clone();
        let keeper = Arc::new(self);
        loop {
            // In the middle of a switch, the kernel has been told a part of it.
            let switching = Arc::clone(&repositories.switching).write_owned();
            let Some(switching) = tasks.until_end(switching).await else {
                return;
            };
            let started = Instant::now();
            let keep = Arc::clone(&keeper);
            let kept = tokio::task::spawn_blocking(move || keep.keep()).await;
            drop(switching);
            if let Ok(Err(error)) = kept {
                let error = &error as &dyn std::error::Error;
                warn!(
                    error,
                    "Can't keep the state of the mount: it would not survive this process"
                );
                return;
            }
            // At most a tenth of the time, also while much changes.
            let pause = started.elapsed() * 10;
            let changed = async {
                sleep(pause).await;
                repositories.view_changed.notified().await;
            };
            if tasks.until_end(changed).await.is_none() {
                return;
            }
        }
    }

    fn keep(&self) -> Result<(), HandOverError> {
        let mut saver = Saver::default();
        self.fs.repositories().save(&mut saver)?;
        if self.fs.inode_count() <= MAX_INODES {
            self.fs.save_inodes(&mut saver, &mut HashMap::new())?;
        }
        saver.state.session = Some(self.session.clone());
        saver.state.clones = self.clones.save();
        let mut state = memory()?;
        state.write_all(&encode(&saver.state, &saver.blobs)?)?;
        let options = serde_json::to_vec(&self.fs.repositories().options);
        let options = options.map_err(HandOverError::state)?;
        let journal = self.fs.journal.as_ref();
        let journal = journal.ok_or_else(|| HandOverError::state("there is no journal"))?;
        let files = [
            self.connection.as_fd(),
            journal.file().as_fd(),
            state.as_fd(),
        ];
        let holder = self.fs.holder.get();
        let holder = holder.ok_or_else(|| HandOverError::state("there is no holder"))?;
        Ok(holder.keep(&options, files)?)
    }
}
