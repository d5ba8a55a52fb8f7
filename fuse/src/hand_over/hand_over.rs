//! Both sides of a hand-over, step by step.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use tokio::net::UnixStream;
use tokio::sync::OwnedRwLockWriteGuard;

use super::wire::{Channel, DESCRIPTORS};
use crate::control::Server;
use crate::fs::Fs;
use crate::ino::{Ino, Tree};
use crate::repository::Repository;
use crate::saved_state::{CloneState, FORMAT, HandOverError, Loader, Saver, SessionState};
use crate::session::{ServedSession, THREADS};

/// How long the new process may take before it says `prepared`. Meanwhile the old one serves.
const PREPARE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the old process waits until no switch to a newer snapshot and no lookup is running.
/// Meanwhile it serves.
const QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the old process waits, with the gate closed, until the new one says `ready`.
pub(super) const READY_TIMEOUT: Duration =
    Duration::from_millis(if cfg!(test) { 500 } else { 5000 });
/// How long the new process waits for `go`. Longer than the old one waits for `ready`.
const GO_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `work`, which blocks on the connection, outside the threads of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HandOverError> + Send + 'static,
) -> Result<T, HandOverError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| HandOverError::Lost(io::Error::other(error)))?
}

/// Returns the word of a new process that reads states of this format.
pub(super) fn begin(format: u32) -> String {
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
        if word != begin(FORMAT) {
            let theirs = word.trim_start_matches("begin ").to_owned();
            let ours = FORMAT;
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
    let no_switch = tokio::time::timeout(QUIET_TIMEOUT, switching).await;
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
        channel.say(&begin(FORMAT))?;
        let received = channel.receive_state()?;
        Ok((channel, received))
    })
    .await?;
    let (state, repositories) = (received.state, fs.repositories());
    let loader = Loader::new(&state.segments, received.blobs, &repositories.segments)?;
    let shown = repositories.adopt(&state.repositories, &loader).await?;
    fs.restore_inodes(state.inodes, state.recounted, &loader, &shown)?;
    Ok(channel)
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
    let descriptors = <[OwnedFd; DESCRIPTORS]>::try_from(received.descriptors);
    let [connection, listener] =
        descriptors.map_err(|_| HandOverError::state("descriptors are missing"))?;
    let mut state = received.state;
    let repositories = fs.repositories();
    let loader = Loader::new(&state.segments, received.blobs, &repositories.segments)?;
    let shown = repositories.adopt(&state.repositories, &loader).await?;
    let states = shown.iter().zip(&state.repositories);
    let stale = states.flat_map(|(repository, state)| repository.stale_names(&state.shown));
    let stale = stale.collect();
    repositories.restore_names(std::mem::take(&mut state.names));
    let session = state.session.take();
    let session = session.ok_or_else(|| HandOverError::state("the session is missing"))?;
    let clones = std::mem::take(&mut state.clones);
    let inodes = std::mem::take(&mut state.inodes);
    let recounted = std::mem::take(&mut state.recounted);
    fs.restore_inodes(inodes, recounted, &loader, &shown)?;
    fs.restore_handles(state, &loader, &shown)?;
    Ok(Taken {
        channel,
        connection,
        listener,
        session,
        clones,
        repositories: shown,
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
