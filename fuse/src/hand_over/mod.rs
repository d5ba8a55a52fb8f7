//! The hand-over of a mount from the process that serves it to a new one.
//!
//! ```text
//! new                                  old
//!   begin                        ───►  accept: sends repositories and inodes, serves on
//!   prepare: rebuilds them
//!   prepared                     ───►  give: closes the gate
//!   take: rebuilds the rest      ◄───  what changed since, handles and descriptors
//!   ready                        ───►
//!   serves                       ◄───  go
//! ```
//!
//! `docs/design/hand-over.md` says why no request is lost.

mod state;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use state::{
    CloneState, ContentState, FileState, InodeState, Loader, NamesState, NodeState,
    OpenDirectoryState, OpenFileState, OpenedState, OutageState, RepositoryState, Saver,
    SessionState, State, Text, WorkTreeFileState,
};
pub(crate) use wire::{Channel, Received, decode, encode};

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use futures_util::future::join_all;
use tokio::net::UnixStream;
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::time::timeout;
use tracing::warn;

use crate::control::Server;
use crate::fs::{Fs, Ino, Tree};
use crate::recovery::Remains;
use crate::repository::{Repositories, Repository};
use crate::session::{ServedSession, THREADS};
use crate::traffic::Purpose;

/// How long the new process may take before it says `prepared`. Meanwhile the old one serves.
const PREPARE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the old process waits until no switch to a newer snapshot and no lookup is running.
/// Meanwhile it serves.
const QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the old process waits, with the gate closed, until the new one says `ready`.
const READY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });
/// How long the new process waits for `go`. Longer than the old one waits for `ready`.
const GO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that follows a killed one waits for what the cache lacks of a repository.
pub(crate) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a mount can't be handed over. The old process serves on.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The connection between the two processes broke, or the other end was too slow.
    #[error("the connection between the two processes broke")]
    Lost(#[from] io::Error),
    /// The other process closed the connection.
    #[error("the other process ended the hand-over")]
    Ended,
    /// The other process said why it can't go on.
    #[error("the other process can't go on: {message}")]
    Refused {
        /// Its reason.
        message: String,
    },
    /// The two processes run versions of the program whose states differ.
    #[error(
        "the program of the mount writes its state in format {ours}, but the new program reads \
         {theirs}"
    )]
    OtherFormat {
        /// The format of the old process.
        ours: u32,
        /// The format that the new process named.
        theirs: String,
    },
    /// The state can't be written down, or this version can't understand it.
    #[error("the state of the mount can't be handed over")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Calls that wait for the network did not end in time.
    #[error("lookups or a switch to a newer snapshot were still waiting for the network")]
    Busy,
}

impl HandOverError {
    pub(crate) fn state(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::State(reason.into())
    }
}

/// Runs `work`, which blocks on the connection, outside the threads of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HandOverError> + Send + 'static,
) -> Result<T, HandOverError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| HandOverError::Lost(io::Error::other(error)))?
}

/// Returns the word of a new process that reads states of this format.
fn begin(format: u32) -> String {
    format!("begin format {format}")
}

/// A new process that is prepared to take the mount over.
#[derive(Debug)]
pub(crate) struct Successor {
    channel: Channel,
    /// The inodes that it knows, with their lookups.
    sent: HashMap<Ino, u64>,
}

/// The old process, first part: sends repositories and inodes, and returns when the new process has
/// them. Nothing has changed until then.
pub(crate) async fn accept(stream: UnixStream, fs: &Fs) -> Result<Successor, HandOverError> {
    let mut channel = Channel::new(stream.into_std()?, PREPARE_TIMEOUT)?;
    // Most of the state goes now, because no caller waits now.
    let (mut saver, mut sent) = (Saver::default(), HashMap::new());
    fs.repositories().save(&mut saver)?;
    fs.save_inodes(&mut saver, &mut sent)?;
    blocking(move || {
        let word = channel.word()?;
        if word != begin(state::FORMAT) {
            let theirs = word.trim_start_matches("begin ").to_owned();
            let ours = state::FORMAT;
            let error = HandOverError::OtherFormat { ours, theirs };
            channel.fail(&error);
            return Err(error);
        }
        channel.send_state(&saver.state, &saver.blobs, &[])?;
        channel.expect("prepared")?;
        Ok(Successor { channel, sent })
    })
    .await
}

/// The lock that the old process keeps after the hand-over. Its views must not switch any more,
/// because the kernel now believes another process.
#[derive(Debug)]
pub(crate) struct Given {
    _no_switch: OwnedRwLockWriteGuard<()>,
}

/// The old process, second part: stops taking requests, and sends everything else. With an error
/// it serves on as before. Otherwise the new process serves.
pub(crate) async fn give(
    successor: Successor,
    fs: &Arc<Fs>,
    served: &ServedSession,
    control: &Server,
) -> Result<Given, HandOverError> {
    let Successor {
        mut channel,
        mut sent,
    } = successor;
    let repositories = Arc::clone(fs.repositories());
    // Before the gate is closed: a switch waits for the kernel, which may wait for a request.
    let switching = Arc::clone(&repositories.switching).write_owned();
    let no_switch = timeout(QUIET_TIMEOUT, switching).await;
    let Ok(no_switch) = no_switch else {
        channel.fail(&HandOverError::Busy);
        return Err(HandOverError::Busy);
    };
    let (fs_of_holder, fs, gate) = (fs, Arc::clone(fs), Arc::clone(&served.gate));
    let descriptors = [served.connection.try_clone()?, control.listener()?];
    let session = served.negotiated.map(|negotiated| SessionState {
        negotiated,
        device: served.device.clone(),
        socket_directory: control.socket_directory().to_owned(),
    });
    let clones = control.clones().save();
    let mount_point = repositories.options.mount_point.clone();
    let closed = Arc::clone(&gate);
    let ready = blocking(move || {
        if !closed.close(THREADS, QUIET_TIMEOUT, || ask_for_a_request(&mount_point)) {
            channel.fail(&HandOverError::Busy);
            return Err(HandOverError::Busy);
        }
        channel.set_patience(READY_TIMEOUT);
        let mut saver = Saver::default();
        fs.repositories().save(&mut saver)?;
        fs.save_inodes(&mut saver, &mut sent)?;
        fs.save_handles(&mut saver)?;
        saver.state.session = session;
        saver.state.clones = clones;
        let descriptors = descriptors.each_ref().map(OwnedFd::as_fd);
        channel.send_state(&saver.state, &saver.blobs, &descriptors)?;
        channel.expect("ready")?;
        Ok(channel)
    })
    .await;
    // Before `go`, so that no client asks a process that no longer serves. Clients that come now
    // wait for the new process.
    control.pause();
    let gone = match ready {
        Ok(mut channel) => {
            // Otherwise it would take the end of this process for a crash.
            if let Some(holder) = fs_of_holder.holder.get() {
                holder.release();
            }
            blocking(move || Ok(channel.say("go")?)).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = gone {
        repositories.view_changed.notify_one();
        gate.open();
        control.serve(&repositories);
        return Err(error);
    }
    control.leave_socket();
    Ok(Given {
        _no_switch: no_switch,
    })
}

/// Makes the kernel send a request to the mount, and doesn't wait for the answer.
fn ask_for_a_request(mount_point: &Path) {
    let mount_point = mount_point.to_owned();
    // `statfs` of a mount point always sends exactly one request. This process may answer it, or
    // the next.
    let asking = move || rustix::fs::statfs(&mount_point).map(drop).ok();
    std::thread::Builder::new()
        .name("cachewfs-statfs".to_owned())
        .spawn(asking)
        .ok();
}

/// The new process, first part: rebuilds the repositories and inodes that the old one has. Returns
/// the connection.
pub(crate) async fn prepare(
    stream: std::os::unix::net::UnixStream,
    fs: &Arc<Fs>,
) -> Result<Channel, HandOverError> {
    let mut channel = Channel::new(stream, PREPARE_TIMEOUT)?;
    let (channel, received) = blocking(move || {
        channel.say(&begin(state::FORMAT))?;
        let received = channel.receive_state()?;
        Ok((channel, received))
    })
    .await?;
    let (state, repositories) = (received.state, fs.repositories());
    let mut loader = Loader::new(&state.segments, received.blobs, &repositories.segments)?;
    for repository in &state.repositories {
        let adopted = repositories.adopt(repository, &loader).await?;
        loader.repositories.push(Some(adopted));
    }
    fs.restore_inodes(state.inodes, state.recounted, &loader)?;
    Ok(channel)
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
    let mut loader = Loader::new(&state.segments, blobs, &repositories.segments)?;
    let adopting = state.repositories.iter_mut();
    let adopting = adopting.map(|repository| adopt_again(repository, &loader, repositories));
    let adopted = join_all(adopting).await;
    loader.repositories = adopted;
    repositories.restore_names(std::mem::take(&mut state.names));
    let session = state.session.take();
    let session = session.ok_or_else(|| HandOverError::state("the session is missing"))?;
    state
        .inodes
        .retain(|inode| loader.has_repository_of(&inode.node));
    fs.restore_inodes(state.inodes, state.recounted, &loader)?;
    fs.assume_inodes().await;
    let mut known = loader.segments().to_vec();
    let adopted: Vec<_> = loader.repositories.into_iter().flatten().collect();
    for repository in &adopted {
        known.extend(repository.view().generation.segments.iter().cloned());
    }
    fs.restore_open_segments(remains.open_segments()?, &known);
    Ok(Recovered {
        session,
        clones: state.clones,
        repositories: adopted,
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
    let adopted = timeout(RECOVERY_TIMEOUT, repositories.adopt(state, loader)).await;
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

/// Everything that the new process has taken. It may serve after [`Taken::wait_for_go`].
#[derive(Debug)]
pub(crate) struct Taken {
    channel: Channel,
    pub(crate) connection: OwnedFd,
    pub(crate) listener: OwnedFd,
    pub(crate) session: SessionState,
    pub(crate) clones: Vec<CloneState>,
    pub(crate) repositories: Vec<Arc<Repository>>,
    /// The names that this program shows otherwise than the old one did.
    pub(crate) stale: Vec<(RepoName, Tree, Vec<u8>)>,
}

/// The new process, second part: receives the rest of the state and rebuilds it in `fs`.
pub(crate) async fn take(mut channel: Channel, fs: &Arc<Fs>) -> Result<Taken, HandOverError> {
    let (channel, received) = blocking(move || {
        channel.say("prepared")?;
        channel.set_patience(QUIET_TIMEOUT * 2 + GO_TIMEOUT);
        let received = channel.receive_state()?;
        Ok((channel, received))
    })
    .await?;
    let (mut channel, received) = (channel, received);
    channel.set_patience(GO_TIMEOUT);
    let descriptors = <[OwnedFd; wire::DESCRIPTORS]>::try_from(received.descriptors);
    let [connection, listener] =
        descriptors.map_err(|_| HandOverError::state("descriptors are missing"))?;
    let mut state = received.state;
    let repositories = fs.repositories();
    let mut loader = Loader::new(&state.segments, received.blobs, &repositories.segments)?;
    let mut stale = Vec::new();
    for repository in &state.repositories {
        let adopted = repositories.adopt(repository, &loader).await?;
        stale.extend(adopted.stale_names(&repository.shown));
        loader.repositories.push(Some(adopted));
    }
    repositories.restore_names(std::mem::take(&mut state.names));
    let session = state.session.take();
    let session = session.ok_or_else(|| HandOverError::state("the session is missing"))?;
    let clones = std::mem::take(&mut state.clones);
    let inodes = std::mem::take(&mut state.inodes);
    let recounted = std::mem::take(&mut state.recounted);
    fs.restore_inodes(inodes, recounted, &loader)?;
    fs.restore_handles(state, &loader)?;
    Ok(Taken {
        channel,
        connection,
        listener,
        session,
        clones,
        repositories: loader.repositories.into_iter().flatten().collect(),
        stale,
    })
}

impl Taken {
    /// Says `ready`, and returns when the old process has said `go`. Before that, this process must
    /// not read a request. Blocks.
    pub(crate) fn wait_for_go(&mut self) -> Result<(), HandOverError> {
        self.channel.say("ready")?;
        self.channel.expect("go")
    }
}
