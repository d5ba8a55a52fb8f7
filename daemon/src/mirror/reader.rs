//! Reads the output of a git process on a thread that may block.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Git, GitError, GitStream};

/// A reader of git's output. Its I/O errors contain a [`GitError`]. Dropping it kills git.
#[derive(Debug)]
pub(crate) struct GitReader {
    git: Git,
    stream: GitStream,
    block: Bytes,
    command: String,
    limit: Duration,
    deadline: Instant,
}

impl GitReader {
    /// Creates a reader of `stream`, whose process may run for `limit`.
    pub(super) fn new(git: Git, (command, stream): (String, GitStream), limit: Duration) -> Self {
        Self {
            git,
            stream,
            block: Bytes::new(),
            command,
            limit,
            deadline: Instant::now() + limit,
        }
    }

    fn next_block(&mut self) -> Result<Option<Bytes>, GitError> {
        let (git, command) = (self.git.clone(), || self.command.clone());
        let next = tokio::time::timeout_at(self.deadline, self.stream.next());
        match git.wait_for(git.unless_stopping(next)) {
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
