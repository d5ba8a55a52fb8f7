//! A git process that runs: what it is fed and prints, and its end.

use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

/// What git may print before it is taken for broken, in bytes: all refs of a very large repository.
pub(super) const MAX_OUTPUT_LEN: u64 = 256 << 20;
/// How much of the end of what git says on stderr is kept, in bytes.
pub(super) const MAX_STDERR_LEN: usize = 16 << 10;

/// Feeds the child, takes what it prints on both pipes, and waits for its end.
pub(super) async fn talk(
    child: &mut Child,
    input: Option<Vec<u8>>,
) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command that has enough closes its end early: its status tells whether that is bad.
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
    let ((), output, stderr) = tokio::try_join!(feed, print, complain)?;
    Ok((child.wait().await?, output, stderr))
}

/// Reads all and keeps the end.
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

/// Kills a child and all its children when dropped, unless it ended by itself.
#[derive(Debug)]
pub(super) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    pub(super) fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended in between: then there is nothing to do.
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}
