//! The messages of a hand-over, over the connection that the request came on.
//!
//! ```text
//! message:  length of the JSON (u64), JSON with the length of each blob, blobs
//! word:     one line: `begin` with the format of the state, `prepared`, `ready` or `go`
//! failure:  `failed: ` and the reason, instead of a message or a word
//! ```
//!
//! Both ends run the same program on the same machine, in two versions. If the versions differ in
//! the format, the old process says so, and serves on.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::saved_state::{HandOverError, Message, Received, State};

/// At most this many bytes of JSON or blobs. A state of a million inodes has some 200 MiB.
const MAX_LEN: u64 = 4 << 30;
/// At most this many bytes of a word.
const MAX_WORD_LEN: u64 = 4096;
/// The bytes in the place of a length or of a word if the other end can't go on. A reason follows.
const FAILED: &[u8; 8] = b"failed: ";
/// The number of descriptors that go with the state.
pub(super) const DESCRIPTORS: usize = 2;

/// The old process's or the new process's end of the connection.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    deadline: Instant,
}

impl Channel {
    /// Takes over a connection. Every call fails once `patience` has passed.
    pub(crate) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let deadline = Instant::now() + patience;
        Ok(Self { stream, deadline })
    }

    /// Starts the patience of the other end anew.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }

    /// Returns the stream, with its timeouts set to what is left.
    fn stream(&mut self) -> io::Result<&mut UnixStream> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))?;
        Ok(&mut self.stream)
    }

    /// Sends a state with its blobs, and the descriptors.
    pub(crate) fn send_state(
        &mut self,
        state: &State,
        blobs: &[Arc<[u8]>],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandOverError> {
        let blob_lens = blobs.iter().map(|blob| blob.len() as u64).collect();
        let json =
            serde_json::to_vec(&Message { blob_lens, state }).map_err(HandOverError::state)?;
        let len = (json.len() as u64).to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(HandOverError::state("too many descriptors"));
        }
        let stream = self.stream()?;
        let first = [IoSlice::new(&len)];
        // The descriptors go with the first bytes, and 8 bytes are never cut on a new connection.
        let sent = rustix::net::sendmsg(&*stream, &first, &mut control, SendFlags::NOSIGNAL);
        if sent.map_err(io::Error::from)? != len.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        stream.write_all(&json)?;
        for blob in blobs {
            self.stream()?.write_all(blob)?;
        }
        Ok(())
    }

    /// Receives a state with its blobs and descriptors.
    pub(crate) fn receive_state(&mut self) -> Result<Received, HandOverError> {
        let mut len = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let stream = self.stream()?;
        let mut first = [IoSliceMut::new(&mut len)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        let received = rustix::net::recvmsg(&*stream, &mut first, &mut control, flags);
        if received.map_err(io::Error::from)?.bytes != len.len() {
            return Err(HandOverError::Ended);
        }
        if &len == FAILED {
            let mut message = String::new();
            self.stream()?
                .take(MAX_WORD_LEN)
                .read_to_string(&mut message)?;
            return Err(HandOverError::Refused { message });
        }
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = descriptors.flatten().collect();
        let json = self.read(u64::from_ne_bytes(len))?;
        let message: Message<State> =
            serde_json::from_slice(&json).map_err(HandOverError::state)?;
        let blobs = message
            .blob_lens
            .iter()
            .map(|&len| Ok(self.read(len)?.into()));
        let blobs = blobs.collect::<Result<_, HandOverError>>()?;
        Ok(Received {
            state: message.state,
            blobs,
            descriptors,
        })
    }

    fn read(&mut self, len: u64) -> Result<Vec<u8>, HandOverError> {
        if len > MAX_LEN {
            return Err(HandOverError::state("a message is too long"));
        }
        // Grows with what arrives: a wrong length reserves no memory.
        let mut bytes = Vec::new();
        self.stream()?.take(len).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != len {
            return Err(HandOverError::Ended);
        }
        Ok(bytes)
    }

    /// Sends a word.
    pub(crate) fn say(&mut self, word: &str) -> io::Result<()> {
        self.stream()?.write_all(format!("{word}\n").as_bytes())
    }

    /// Says why this end can't go on. Then it closes the connection.
    pub(crate) fn fail(mut self, error: &HandOverError) {
        // If the other end has gone, it needs no reason.
        self.stream()
            .and_then(|stream| stream.write_all(format!("failed: {error}").as_bytes()))
            .ok();
    }

    /// Waits for a word. Fails if another comes.
    pub(crate) fn expect(&mut self, word: &str) -> Result<(), HandOverError> {
        let came = self.word()?;
        if came == word {
            return Ok(());
        }
        Err(HandOverError::state(format!(
            "`{came}` came instead of `{word}`"
        )))
    }

    /// Waits for a word, and returns it.
    pub(crate) fn word(&mut self) -> Result<String, HandOverError> {
        let mut line = Vec::new();
        // Byte by byte: a state may follow, and belongs to another reader.
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            if line == FAILED {
                let mut message = String::new();
                self.stream()?
                    .take(MAX_WORD_LEN)
                    .read_to_string(&mut message)?;
                return Err(HandOverError::Refused { message });
            }
            if line.len() as u64 > MAX_WORD_LEN || self.stream()?.read(&mut byte)? == 0 {
                return Err(HandOverError::Ended);
            }
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
