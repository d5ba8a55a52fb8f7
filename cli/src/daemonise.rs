//! Serving a mount in the background: the program runs itself again, and returns when the mount
//! works.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::error::CliError;

/// Set for the process that serves.
const BACKGROUND: &str = "CACHEWFS_BACKGROUND";
/// What that process says when the mount works.
const READY: &[u8] = b"ready\n";

/// Whether this process is the one that serves in the background.
pub(crate) fn is_background() -> bool {
    std::env::var_os(BACKGROUND).is_some()
}

/// Runs this program again with the same arguments, in a session of its own; returns when its mount
/// works, or with what it said when it failed.
pub(crate) fn start_background() -> Result<()> {
    let program = std::env::current_exe().context("can't find this program")?;
    let mut command = Command::new(program);
    // The helper knows what it is by its name.
    if let Some(name) = std::env::args_os().next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    let mut child = command
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start a process in the background")?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(());
    }
    let mut message = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut message)?;
    }
    child.wait()?;
    let message = message.trim().trim_start_matches("cachewfs: ").to_owned();
    Err(CliError::NotMounted { message }.into())
}

/// Leaves the terminal's session, so that closing it doesn't end the mount.
pub(crate) fn leave_session() {
    // Fails for a process that leads a group already, which is as good.
    rustix::process::setsid().ok();
}

/// Tells the process in the foreground that the mount works, and lets go of its terminal.
pub(crate) fn report_ready() -> Result<()> {
    io::stdout().write_all(READY)?;
    io::stdout().flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).map_err(io::Error::from)?;
    rustix::stdio::dup2_stderr(&null).map_err(io::Error::from)?;
    std::env::set_current_dir("/")?;
    Ok(())
}
