//! The CLI's end of the control socket.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::protocol::{Answer, Progress, Reply, Request};

/// A connection to a mount.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

/// Why a request to a mount fails.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the mount went away")]
    Lost(#[from] io::Error),
    /// The mount says something that this program doesn't understand.
    #[error("the mount speaks another version of the protocol")]
    BadReply(#[from] serde_json::Error),
    /// The mount could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// Connects to the mount at `mount_point`.
    pub async fn connect(mount_point: &Path) -> io::Result<Self> {
        let mount_point = mount_point
            .canonicalize()
            .unwrap_or_else(|_| mount_point.to_owned());
        let own = UnixStream::connect(super::socket_path(&mount_point)).await;
        let stream = match own {
            Ok(stream) => stream,
            // A user may ask about root's mount.
            Err(error) => UnixStream::connect(super::system_socket_path(&mount_point))
                .await
                .map_err(|_| error)?,
        };
        Ok(Self(BufReader::new(stream)))
    }

    /// Makes a request, and waits for its answer.
    pub async fn call(
        &mut self,
        request: &Request,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Answer, ClientError> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.0.get_mut().write_all(line.as_bytes()).await?;
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
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
