//! Recovery: serves a mount on whose process was killed.
//!
//! ```text
//! process of the mount           holder (a small process)          next process
//!   Keeper: connection, journal,
//!   state, options          ───►  keeps the last of each
//!   is killed                     notices it
//!                                 starts the next process    ───►  Remains
//! ```
//!
//! `docs/design/hand-over.md` says what survives.

mod journal;
mod message;

pub(crate) use journal::{OpenJournal, OpenSegment};
pub use message::{receive, send};

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::MemfdFlags;
use tokio::time::sleep;
use tracing::warn;

use crate::control::Clones;
use crate::fs::Fs;
use crate::hand_over::{HandOverError, Received, Saver, SessionState, decode, encode};
use crate::options::MountOptions;

/// At most this many inodes are kept for the next process. It finds those of the snapshots that are
/// shown by itself, and knows others only from here.
const MAX_INODES: usize = 100_000;
/// The message, without files, after which the holder keeps nothing.
const RELEASED: &[u8] = b"released";
/// The number of files that go to the holder.
const FILES: usize = 3;

/// The socket of the process that keeps the connection to the kernel open if this one is killed.
#[derive(Debug)]
pub struct Holder(OwnedFd);

impl Holder {
    /// Uses a socket of the type `SOCK_SEQPACKET`.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Tells the holder that another process serves the mount now, or is about to.
    pub(crate) fn release(&self) {
        // It fails if the holder is no more. Then it does nothing either.
        send(&self.0, RELEASED, &[]).ok();
    }
}

/// All that a killed process left.
#[derive(Debug)]
pub struct Remains {
    /// The options of its mount.
    pub options: MountOptions,
    pub(crate) connection: OwnedFd,
    journal: File,
    state: File,
}

impl Remains {
    /// Unpacks the last message that the holder got.
    pub fn unpack(options: &[u8], files: Vec<OwnedFd>) -> io::Result<Self> {
        let [connection, journal, state] = <[OwnedFd; FILES]>::try_from(files)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self {
            options: serde_json::from_slice(options)?,
            connection,
            journal: journal.into(),
            state: state.into(),
        })
    }

    /// Returns the open segments.
    pub(crate) fn open_segments(&self) -> io::Result<Vec<OpenSegment>> {
        journal::read(&self.journal)
    }

    /// Returns the state, with the bytes that it names.
    pub(crate) fn state(&self) -> Result<Received, HandOverError> {
        let mut file = &self.state;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        decode(&bytes)
    }
}

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
        let ending = repositories.segments.backend().ending.clone();
        let keeper = Arc::new(self);
        loop {
            // In the middle of a switch, the kernel has been told a part of it.
            let switching = Arc::clone(&repositories.switching).write_owned();
            let Some(switching) = ending.run_until_cancelled(switching).await else {
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
            if ending.run_until_cancelled(changed).await.is_none() {
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
        Ok(send(&holder.0, &options, &files)?)
    }
}

/// Returns a file in memory.
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("cachewfs", MemfdFlags::CLOEXEC)?.into())
}
