//! [`Remains`]: what a killed process left, and how it becomes a mount again.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::warn;

use crate::fs::Fs;
use crate::holder::{FILES, OpenSegment, read_journal};
use crate::options::MountOptions;
use crate::repository::{Repositories, Repository};
use crate::saved_state::{
    CloneState, HandOverError, Loader, Received, RepositoryState, SessionState, decode,
};
use crate::traffic::Purpose;

/// How long the process waits for what the cache lacks of a repository.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(3);

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
    let adopting = state.repositories.iter_mut();
    let adopting = adopting.map(|repository| adopt_again(repository, &loader, repositories));
    // In the order of their places. A place is empty if its repository can't be shown again.
    let shown = join_all(adopting).await;
    let shown_at = |place: usize| shown.get(place).cloned().flatten();
    repositories.restore_names(std::mem::take(&mut state.names));
    let session = state.session.take();
    let session = session.ok_or_else(|| HandOverError::state("the session is missing"))?;
    let is_shown = |place: usize| shown_at(place).is_some();
    let inodes = &mut state.inodes;
    inodes.retain(|inode| inode.node.repository().is_none_or(is_shown));
    fs.restore_inodes(state.inodes, state.recounted, &loader, shown_at)?;
    fs.assume_inodes(RECOVERY_TIMEOUT).await;
    let mut known = loader.segments().to_vec();
    let shown: Vec<_> = shown.into_iter().flatten().collect();
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

/// Shows a repository again, as far as that is possible. Returns `None` if it is not.
///
/// All callers of the mount wait meanwhile. So what neither the cache nor a daemon has at hand is
/// given up, and lookups find it again later.
async fn adopt_again(
    state: &mut RepositoryState,
    loader: &Loader,
    repositories: &Repositories,
) -> Option<Arc<Repository>> {
    let had_work_tree = std::mem::take(&mut state.has_loaded_work_tree);
    let adopted = timeout(RECOVERY_TIMEOUT, repositories.adopt_one(state, loader)).await;
    let adopted = adopted.unwrap_or_else(|_| Err(HandOverError::state("no daemon answered")));
    let repository = match adopted {
        Ok(repository) => repository,
        Err(error) => {
            let (repo, error) = (&state.name, &error as &dyn std::error::Error);
            warn!(%repo, error, "Can't go on with {repo}: it has to be opened anew");
            return None;
        }
    };
    if had_work_tree {
        let generation = repository.view().generation;
        let loading = generation.work_tree(Purpose::Background);
        timeout(RECOVERY_TIMEOUT, loading).await.ok();
    }
    Some(repository)
}
