//! A running git process: its input, its output and its end.

use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

/// At most this many bytes of output, enough for all refs of a very large repository. With more,
/// the command fails.
pub(super) const MAX_OUTPUT_LEN: u64 = 256 << 20;
/// At most this many bytes are kept of the end of stderr.
pub(super) const MAX_STDERR_LEN: usize = 16 << 10;

/// Writes `input` to the child, reads stdout and stderr, and waits for its exit.
pub(super) async fn communicate(
    child: &mut Child,
    input: Option<Vec<u8>>,
) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command that needs no more input closes the pipe early. Its exit code tells whether
            // that is an error.
            stdin.write_all(&input).await.ok();
        }
        Ok(())
    };
    let print = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout
                .take(MAX_OUTPUT_LEN + 1)
                .read_to_end(&mut output)
                .await?;
        }
        Ok(output)
    };
    let complain = async {
        match stderr {
            Some(stderr) => read_tail(stderr).await,
            None => Ok(Vec::new()),
        }
    };
    // All three pipes at once: the child blocks while a pipe is full, so serving one after another
    // could deadlock.
    let ((), output, stderr) = tokio::try_join!(feed, print, complain)?;
    Ok((child.wait().await?, output, stderr))
}

/// Reads to the end and returns the last bytes.
async fn read_tail(mut from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    let mut block = [0; 4096];
    loop {
        let len = from.read(&mut block).await?;
        if len == 0 {
            break;
        }
        tail.extend_from_slice(block.get(..len).unwrap_or_default());
        if tail.len() > 2 * MAX_STDERR_LEN {
            tail.drain(..tail.len() - MAX_STDERR_LEN);
        }
    }
    tail.drain(..tail.len().saturating_sub(MAX_STDERR_LEN));
    Ok(tail)
}

/// A process group. Dropping it kills a child and all its children, unless it was disarmed.
#[derive(Debug)]
pub(super) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// Returns the group of `child`, which was started as the leader of a group of its own.
    pub(super) fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    /// Gives the group up, because its leader has ended and the kernel may reuse the id.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // An error means that the group has ended already.
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}
