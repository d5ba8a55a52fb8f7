//! The holder: a small process that keeps the connection of a mount in the background open, and
//! starts another process to serve it if that one is killed.
//!
//! ```text
//! holder (this program, without a runtime)      process of the mount (CACHEWFS_HELD)
//!   starts it with a socket as standard input ──► serves
//!   keeps the files of the last message      ◄─── sends /dev/fuse and its state
//!   waits for its end
//!     it ended by itself ──► ends
//!     it was killed      ──► starts another with the files
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cachewfs_fuse::MountOptions;
use cachewfs_fuse::recovery::{Holder, Remains, receive, send};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tracing::error;

use crate::daemonise;
use crate::mounting::start_logging;

/// The environment variable that is set for the process of the mount: [`NEW`], or the number of the
/// signal that killed the process before it.
const HELD: &str = "CACHEWFS_HELD";
/// The value for a process that mounts.
const NEW: &str = "new";
/// At most this many processes are started within [`PERIOD`] after others were killed. Something
/// kills each of them, and a mount that hangs is worse than one that is gone.
const MAX_RESTARTS: usize = 3;
const PERIOD: Duration = Duration::from_mins(1);

/// The files that the process of the mount sent, with its options.
type Kept = (Vec<u8>, Vec<OwnedFd>);

/// Returns whether this process has a holder.
pub(crate) fn is_held() -> bool {
    std::env::var_os(HELD).is_some()
}

/// Returns the signal that killed the process before this one, or `None` if this is the first.
pub(crate) fn killed_by() -> Option<i32> {
    std::env::var(HELD).ok()?.parse().ok()
}

/// Takes the socket of the holder from standard input.
fn socket() -> Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(io::Error::from)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    Ok(socket)
}

/// Returns the holder of this process.
pub(crate) fn of_this_process() -> Result<Holder> {
    Ok(Holder::new(socket()?))
}

/// Returns the holder of this process, and what the killed process before it left.
pub(crate) fn remains() -> Result<(Holder, Remains)> {
    let socket = socket()?;
    let (options, files) = receive(&socket)?.context("the holder is gone")?;
    Ok((Holder::new(socket), Remains::unpack(&options, files)?))
}

/// Starts the process of the mount, and holds the mount until that ends by itself.
pub(crate) fn hold() -> Result<()> {
    let (End::Killed(mut signal), Some(mut last)) = serve(NEW, None)? else {
        return Ok(());
    };
    let mut restarts: VecDeque<Instant> = VecDeque::new();
    loop {
        restarts.retain(|at| at.elapsed() < PERIOD);
        if restarts.len() >= MAX_RESTARTS {
            return give_up(&last, signal);
        }
        restarts.push_back(Instant::now());
        match serve(&signal.to_string(), Some(&last))? {
            (End::Killed(by), kept) => {
                signal = by;
                last = kept.unwrap_or(last);
            }
            // It did not get as far as to serve.
            (End::Failed, None) => {}
            _ => return Ok(()),
        }
    }
}

/// Says in the log that the mount ends.
fn give_up((options, _): &Kept, signal: i32) -> Result<()> {
    let options: MountOptions = serde_json::from_slice(options)?;
    if options.log.is_some() {
        start_logging(options.log.as_deref())?;
    }
    error!(
        mount_point = %options.mount_point.display(),
        signal,
        "The process of the mount was killed, and so was each that followed it: the mount ends"
    );
    Ok(())
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The mount has ended, or another process serves it.
    Done,
    /// It failed, and said nothing before.
    Failed,
    /// This signal ended it.
    Killed(i32),
}

/// Runs a process of the mount to its end. Returns the files that it sent last.
fn serve(kind: &str, last: Option<&Kept>) -> Result<(End, Option<Kept>)> {
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, theirs) = pair.map_err(io::Error::from)?;
    let program = std::env::current_exe().context("can't find the path of the program cachewfs")?;
    // If another version has replaced the file, this one still reads the state.
    let program = if program.exists() {
        program
    } else {
        "/proc/self/exe".into()
    };
    let mut command = Command::new(program);
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let mut child = command
        .args(arguments)
        .env(HELD, kind)
        .stdin(Stdio::from(theirs))
        .spawn()
        .context("can't start the process of the mount")?;
    // Its end of the socket.
    drop(command);
    daemonise::detach()?;
    if let Some((options, files)) = last {
        let files: Vec<_> = files.iter().map(OwnedFd::as_fd).collect();
        // It fails if the process has ended already.
        send(&ours, options, &files).ok();
    }
    let (mut kept, mut has_served) = (None, false);
    while let Ok(Some((options, files))) = receive(&ours) {
        // Without files, another process serves the mount now.
        kept = (!files.is_empty()).then_some((options, files));
        has_served = true;
    }
    let status = child.wait()?;
    let end = if let Some(signal) = status.signal() {
        End::Killed(signal)
    } else if has_served || status.success() {
        End::Done
    } else {
        End::Failed
    };
    Ok((end, kept))
}
