//! Serves a mount in the background.
//!
//! ```text
//! foreground process                      background process (CACHEWFS_BACKGROUND=1)
//! start_background ── same program, same arguments ──► leave_session
//!    waits for its standard output                     mounts
//!    reads a MountReport ◄──────────────────────────── report_ready, detaches from the terminal
//! exits with success                                   serves until it is unmounted
//! ```
//!
//! If the mount fails, the background process prints its error and ends. The foreground process
//! reports that error. It also passes on a warning that comes before the report. The background
//! process speaks JSON to the foreground process, whatever the user asked for.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::error::CliError;
use crate::failure::{Failure, SpokenLine};
use crate::mount_report::MountReport;
use crate::output;
use crate::progress::Bar;

/// The environment variable that is set for the background process.
const BACKGROUND: &str = "CACHEWFS_BACKGROUND";

/// How long a mount may take before a line says that it takes long. It waits a second for a daemon
/// that doesn't answer, and says so afterwards.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns whether this process is the background process.
pub(crate) fn is_background() -> bool {
    std::env::var_os(BACKGROUND).is_some()
}

/// Starts this program again with the arguments of this process, as the background process. Returns
/// when its mount is ready. If it fails, the error is the one that it printed.
pub(crate) fn start_background() -> Result<MountReport> {
    let program = std::env::current_exe().context("can't find the path of the program cachewfs")?;
    withhold_inherited_files();
    let mut command = Command::new(program);
    // The program finds out from its own name whether it is the helper of mount(8).
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
    let bar = Bar::after(PATIENCE);
    bar.step("waiting until the mount is ready");
    // The end of standard output is the signal: it comes when the child has reported that it is
    // ready and has replaced the stream, or when the child has ended.
    let mut printed = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut printed)?;
    }
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut message)?;
    }
    bar.finish();
    if let Ok(report) = serde_json::from_slice(&printed) {
        // A warning: the mount works all the same.
        message.lines().for_each(pass_on);
        return Ok(report);
    }
    child.wait()?;
    let failure = Failure::printed(&message);
    Err(CliError::NotMounted { failure }.into())
}

/// Prints a line of the background process as this process speaks.
fn pass_on(line: &str) {
    match serde_json::from_str(line) {
        Ok(SpokenLine::Warning { message }) => output::error(&format!("cachewfs: {message}")),
        Ok(SpokenLine::Error(failure)) => output::error(&failure.message),
        Err(_) => output::error(line),
    }
}

/// Keeps the files that this process inherited, for example from a script, from the processes that
/// it starts. One of them may be in the mount, which could then never be unmounted.
pub(crate) fn withhold_inherited_files() {
    let (call, first, last) = (libc::SYS_close_range, 3_u32, u32::MAX);
    #[expect(unsafe_code, reason = "no library has a safe function for this call")]
    // SAFETY: the call only marks files to be closed in the programs that this process starts. The
    // standard library marks all files that it opens in the same way.
    unsafe {
        // A kernel before 5.11 can't do it. The mount works all the same.
        libc::syscall(call, first, last, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Leaves the session of the terminal, so that closing the terminal doesn't end the mount.
pub(crate) fn leave_session() {
    // The call fails for a leader of a process group, which stays in the session. The mount
    // goes on all the same: in the background, `serve` ignores the SIGHUP of a closed terminal.
    rustix::process::setsid().ok();
}

/// Reports to the foreground process that the mount is ready, and detaches from its terminal.
pub(crate) fn report_ready(report: &MountReport) -> Result<()> {
    let report = serde_json::to_string(report)?;
    io::stdout().write_all(report.as_bytes())?;
    io::stdout().flush()?;
    detach()
}

/// Detaches from the terminal and from the current directory.
pub(crate) fn detach() -> Result<()> {
    // Both streams are pipes to the foreground process, which waits for the end of the first. A
    // write to either would also fail once that process has ended.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).map_err(io::Error::from)?;
    rustix::stdio::dup2_stderr(&null).map_err(io::Error::from)?;
    // The current directory would keep its filesystem from being unmounted.
    std::env::set_current_dir("/")?;
    Ok(())
}
