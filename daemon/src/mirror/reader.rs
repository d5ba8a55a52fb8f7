//! Reads the output of a git process on a thread that may block.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{GitError, GitStream};

/// A reader of git's output. Its I/O errors contain a [`GitError`]. Dropping it kills git.
#[derive(Debug)]
pub(crate) struct GitReader {
    runtime: Handle,
    stop: CancellationToken,
    stream: GitStream,
    block: Bytes,
    command: String,
    limit: Duration,
    deadline: Instant,
}

impl GitReader {
    /// Creates a reader of `stream`, whose process may run for `limit` and until `stop`.
    pub(super) fn new(
        (runtime, stop): (Handle, CancellationToken),
        (command, stream): (String, GitStream),
        limit: Duration,
    ) -> Self {
        Self {
            runtime,
            stop,
            stream,
            block: Bytes::new(),
            command,
            limit,
            deadline: Instant::now() + limit,
        }
    }

    fn next_block(&mut self) -> Result<Option<Bytes>, GitError> {
        let command = || self.command.clone();
        let next = tokio::time::timeout_at(self.deadline, self.stream.next());
        match self.runtime.block_on(self.stop.run_until_cancelled(next)) {
            None => Err(GitError::Stopped { command: command() }),
            Some(Err(_)) => Err(GitError::TimedOut {
                command: command(),
                limit: self.limit,
            }),
            Some(Ok(next)) => next,
        }
    }
}

impl Read for GitReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            match self.next_block().map_err(io::Error::other)? {
                Some(block) => self.block = block,
                None => return Ok(0),
            }
        }
        let len = into.len().min(self.block.len());
        let (into, _) = into.split_at_mut(len);
        into.copy_from_slice(&self.block.split_to(len));
        Ok(len)
    }
}
