//! [`Remains`]: what a killed process left, and how it becomes a mount again.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::fs::Fs;
use crate::holder::{FILES, OpenSegment, read_journal};
use crate::options::MountOptions;
use crate::repository::Repository;
use crate::saved_state::{CloneState, HandOverError, Loader, Received, SessionState, decode};

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
        read_journal(&self.journal)
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

/// The parts of a killed process's state that its file system doesn't have.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) session: SessionState,
    pub(crate) clones: Vec<CloneState>,
    pub(crate) repositories: Vec<Arc<Repository>>,
}

/// Rebuilds in `fs` what a killed process knew.
pub(crate) async fn recover(remains: &Remains, fs: &Fs) -> Result<Recovered, HandOverError> {
    let Received {
        mut state, blobs, ..
    } = remains.state()?;
    let repositories = fs.repositories();
    let loader = Loader::new(&state.segments, blobs, &repositories.segments)?;
    let shown = repositories.adopt(&state.repositories, &loader).await?;
    repositories.restore_names(std::mem::take(&mut state.names));
    let session = state.session.take();
    let session = session.ok_or_else(|| HandOverError::state("the session is missing"))?;
    fs.restore_inodes(state.inodes, state.recounted, &loader, &shown)?;
    fs.assume_inodes().await;
    let mut known = loader.segments().to_vec();
    for repository in &shown {
        known.extend(repository.view().generation.segments.iter().cloned());
    }
    fs.restore_open_segments(remains.open_segments()?, &known);
    Ok(Recovered {
        session,
        clones: state.clones,
        repositories: shown,
    })
}
