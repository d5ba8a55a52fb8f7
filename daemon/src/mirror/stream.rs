//! Streams the output of a git process.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tracing::Span;

use super::GitError;
use super::process::{MAX_STDERR_LEN, ProcessGroup};
use crate::base::redact;
use crate::traces;

/// At most this many bytes are read at once.
const BLOCK_LEN: usize = 64 << 10;

/// A running git process. Dropping it kills its process group, unless the process has ended.
#[derive(Debug)]
pub(crate) struct GitStream {
    command: String,
    group: ProcessGroup,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    stderr_tail: BytesMut,
    /// The span from the process's start to its end.
    span: Span,
}

impl GitStream {
    pub(super) fn new(command: String, group: ProcessGroup, mut child: Child) -> Self {
        let span = traces::git_span(&command);
        Self {
            command,
            group,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            stderr_tail: BytesMut::new(),
            span,
        }
    }

    /// Returns the next bytes, or `None` if git has ended with success. Cancel-safe: a caller may
    /// drop the future and call this again.
    ///
    /// Between two calls nothing is read, so git blocks on its full pipe until the caller is ready.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, GitError> {
        // stderr is read together with stdout: git would block if that pipe were full.
        while self.stdout.is_some() || self.stderr.is_some() {
            let mut block = BytesMut::with_capacity(BLOCK_LEN);
            let mut stderr_tail = BytesMut::with_capacity(4 << 10);
            let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
            let read = async {
                match stdout {
                    Some(stdout) => stdout.read_buf(&mut block).await,
                    None => std::future::pending().await,
                }
            };
            let read_stderr = async {
                match stderr {
                    Some(stderr) => stderr.read_buf(&mut stderr_tail).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                len = read => match len.map_err(|source| self.pipe_error(source))? {
                    0 => self.stdout = None,
                    _ => return Ok(Some(block.freeze())),
                },
                len = read_stderr => match len.map_err(|source| self.pipe_error(source))? {
                    0 => self.stderr = None,
                    _ => self.keep_stderr(&stderr_tail),
                },
            }
        }
        let ended = self.child.wait().await;
        let status = ended.map_err(|source| self.pipe_error(source))?;
        self.group.disarm();
        if status.success() {
            return Ok(None);
        }
        traces::note_exit(&self.span, status.code());
        Err(GitError::Failed {
            command: self.command.clone(),
            status,
            stderr: redact(String::from_utf8_lossy(&self.stderr_tail).trim()),
        })
    }

    /// Keeps the last bytes of stderr.
    fn keep_stderr(&mut self, stderr_tail: &[u8]) {
        self.stderr_tail.extend_from_slice(stderr_tail);
        let surplus = self.stderr_tail.len().saturating_sub(MAX_STDERR_LEN);
        drop(self.stderr_tail.split_to(surplus));
    }

    fn pipe_error(&self, source: std::io::Error) -> GitError {
        GitError::Pipe {
            command: self.command.clone(),
            source,
        }
    }
}
