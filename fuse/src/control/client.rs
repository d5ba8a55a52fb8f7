//! The CLI's end of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Uid, geteuid};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ControlAnswer, ControlRequest, Progress, Reply};
use super::socket_directory::{self, SocketDirectory, SocketDirectoryError};

/// A mount that says nothing for so long has stopped: one that works says something every
/// [`super::HEARTBEAT`].
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);

/// A connection to a mount.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

/// Why a mount can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("it doesn't answer")]
    Dead(#[source] io::Error),
    /// The mount's socket is in a directory where other users may have put it.
    #[error("its socket can't be trusted")]
    SocketDirectory(#[from] SocketDirectoryError),
    /// The process that listens is another user's.
    #[error("uid {uid} answers for it, who is neither root nor you")]
    Stranger {
        /// The user of the process.
        uid: u32,
    },
    /// The mount answers only its owner.
    #[error(
        "it was mounted without allow_other, and answers only root and the user who mounted it"
    )]
    Denied,
}

/// Why a request to a mount fails.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the mount went away")]
    Lost(#[from] io::Error),
    /// The mount has stopped working.
    #[error("the mount has said nothing for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
    /// The mount says something that this program doesn't understand.
    #[error("the mount speaks another version of the protocol")]
    BadReply(#[from] serde_json::Error),
    /// The mount could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// Connects to the mount at `mount_point`: to one of this user, else to one of root.
    pub async fn connect(mount_point: &Path) -> Result<Self, ConnectError> {
        let mount_point = mount_point
            .canonicalize()
            .unwrap_or_else(|_| mount_point.to_owned());
        let name = super::socket_name(&mount_point);
        let error = match connect_in(socket_directory::of_this_user(), &name).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        match connect_in(socket_directory::of_root(), &name).await {
            // There is no such mount of root's: the first error tells more.
            Err(ConnectError::Dead(_)) => Err(error),
            outcome => outcome,
        }
    }

    /// Makes a request, and waits for its answer.
    pub async fn call(
        &mut self,
        request: &ControlRequest,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<ControlAnswer, ClientError> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.0.get_mut().write_all(line.as_bytes()).await?;
        loop {
            line.clear();
            let read = timeout(SILENCE_TIMEOUT, self.0.read_line(&mut line)).await;
            if read.map_err(|_| ClientError::Silent)?? == 0 {
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

/// Connects to the socket `name` in a directory that its owner must own alone.
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
    let uid = stream.peer_cred().map_err(ConnectError::Dead)?.uid();
    if uid != Uid::ROOT.as_raw() && uid != geteuid().as_raw() {
        return Err(ConnectError::Stranger { uid });
    }
    Ok(Client(BufReader::new(stream)))
}
