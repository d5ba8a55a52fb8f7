//! The CLI's end of the control socket: finds the socket of a mount, and makes requests over it.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Uid, geteuid};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ControlAnswer, ControlRequest, Progress, Reply};
use super::socket::socket_name;
use super::socket_directory::{self, SocketDirectory, SocketDirectoryError};
use crate::mount_table::mount_at;

/// How long a mount may send nothing before the client gives up. A mount that works on a request
/// sends a line every [`super::HEARTBEAT`].
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to a mount.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// The process that serves the mount, or 0 if it is in another PID namespace.
    pid: i32,
}

/// Why the client can't connect to a mount.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The mount table has no cachewfs mount there.
    #[error("no cachewfs mount is there")]
    NotMounted,
    /// No process listens on the socket.
    #[error("no process answers on its control socket")]
    Dead(#[source] io::Error),
    /// The socket's directory is one where other users may have put the socket.
    #[error("its control socket can't be trusted")]
    SocketDirectory(#[from] SocketDirectoryError),
    /// The process that listens belongs to another user.
    #[error("the process on its control socket runs as uid {uid}, which is neither root nor you")]
    Stranger {
        /// The user of the process.
        uid: u32,
    },
    /// The socket's mode doesn't let this user connect.
    #[error("it was mounted without allow_other: it answers only root and the user who mounted it")]
    Denied,
}

/// Why a request to a mount fails.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke before the answer was complete.
    #[error("the connection to the mount broke")]
    Lost(#[from] io::Error),
    /// The mount sent nothing within the timeout.
    #[error(
        "the mount doesn't answer: its process {pid} has sent nothing for {} s",
        SILENCE_TIMEOUT.as_secs()
    )]
    Silent {
        /// The process that serves the mount, or 0 if it is in another PID namespace.
        pid: i32,
    },
    /// The mount sent a line that this program can't parse.
    #[error(
        "the mount speaks another version of the protocol; unmount and mount again with this version"
    )]
    BadReply(#[from] serde_json::Error),
    /// The mount reports that the request failed.
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// Connects to this user's mount at `mount_point` or, if there is none, to root's.
    pub async fn connect(mount_point: &Path) -> Result<Self, ConnectError> {
        let mount_point = mount_point
            .canonicalize()
            .unwrap_or_else(|_| mount_point.to_owned());
        let entry = mount_at(&mount_point).map_err(ConnectError::Dead)?;
        let is_mounted = entry.is_some();
        // Without a mount, the directories are checked all the same: a user should learn that
        // another user could put a socket there.
        let name = entry.map_or("none".to_owned(), |entry| socket_name(&entry.device));
        let mut first_error = None;
        for directory in socket_directory::all_of_this_user() {
            match connect_in(directory, &name).await {
                Ok(client) => return Ok(client),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match (
            connect_in(socket_directory::of_root(), &name).await,
            first_error,
        ) {
            (Err(ConnectError::Dead(_)), Some(ConnectError::Dead(_)) | None) if !is_mounted => {
                Err(ConnectError::NotMounted)
            }
            // Root has no mount there either. The error about this user's own socket says more.
            (Err(ConnectError::Dead(_)), Some(error)) => Err(error),
            (outcome, _) => outcome,
        }
    }

    /// Sends a request and waits for its answer. Passes each progress report to `on_progress`.
    pub async fn call(
        &mut self,
        request: &ControlRequest,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<ControlAnswer, ClientError> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        loop {
            line.clear();
            let read = timeout(SILENCE_TIMEOUT, self.stream.read_line(&mut line)).await;
            if read.map_err(|_| ClientError::Silent { pid: self.pid })?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match serde_json::from_str(&line)? {
                Reply::Progress(progress) => on_progress(progress),
                Reply::Done(answer) => return Ok(answer),
                Reply::Failed { message } => return Err(ClientError::Failed(message)),
            }
        }
    }
}

impl Client {
    /// Asks the mount to hand itself over, and returns the connection for that.
    pub(crate) async fn replace(mut self) -> Result<std::os::unix::net::UnixStream, ClientError> {
        self.call(&ControlRequest::Replace, |_| {}).await?;
        // Nothing is buffered: the mount sends nothing more before this end does.
        Ok(self.stream.into_inner().into_std()?)
    }

    /// Asks for the options of the mount at `mount_point`, whose process is to be replaced.
    pub async fn options(&mut self) -> Result<crate::MountOptions, ClientError> {
        match self.call(&ControlRequest::Options, |_| {}).await? {
            ControlAnswer::Options { options } => Ok(serde_json::from_value(options)?),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }
}

/// Connects to the socket `name` in `directory`, which nobody but `owner` may write to.
pub(super) async fn connect_in(
    (directory, owner): (std::path::PathBuf, Uid),
    name: &str,
) -> Result<Client, ConnectError> {
    let sockets = SocketDirectory::open(&directory, owner).map_err(|error| match error {
        SocketDirectoryError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ConnectError::Dead(source)
        }
        error => error.into(),
    })?;
    let stream = UnixStream::connect(sockets.join(name)).await;
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ConnectError::Denied,
        _ => ConnectError::Dead(error),
    })?;
    // The directory's owner and mode don't say which process created the socket. An earlier, more
    // open mode may have let another user put one there. So the kernel is asked for the uid of the
    // process that listens.
    let peer = stream.peer_cred().map_err(ConnectError::Dead)?;
    let uid = peer.uid();
    if uid != Uid::ROOT.as_raw() && uid != geteuid().as_raw() {
        return Err(ConnectError::Stranger { uid });
    }
    Ok(Client {
        stream: BufReader::new(stream),
        pid: peer.pid().unwrap_or_default(),
    })
}
