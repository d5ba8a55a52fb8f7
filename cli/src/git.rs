//! Runs git for a clone, and ends it with all of its child processes. Asks git about repositories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::error::CliError;

/// Environment variables that are removed for git.
///
/// git sets them for a hook or an alias, which may run this program. They would lead git to another
/// repository (`git rev-parse --local-env-vars`), or change the format of the new one.
const FOREIGN_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REFERENCE_BACKEND",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The process group of a running git. Dropping it kills the group.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Killing git alone isn't enough: the workers of a checkout would go on writing files.
            // The call fails if all processes have ended, which is fine.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

/// Runs `git <subcommand>` in `directory`, with each item of `config` after a `-c`. If the future
/// is dropped, git and its child processes are killed.
///
/// The user's git configuration applies, as it does to `git clone`. The exceptions are settings
/// that decide which files a new repository has, because their defaults differ between versions of
/// git.
pub(crate) async fn run(
    directory: &Path,
    config: &[&str],
    subcommand: &str,
    arguments: &[&str],
) -> Result<()> {
    let call = Call {
        config,
        ..Call::new(directory, subcommand, arguments)
    };
    call.output().await.map(drop)
}

/// A call of git with an input, an output, or an index of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) directory: &'a Path,
    /// Each item stands after a `-c`.
    pub(crate) config: &'a [&'a str],
    pub(crate) subcommand: &'a str,
    pub(crate) arguments: &'a [&'a str],
    /// The index. If `None`, it is that of the repository.
    pub(crate) index: Option<&'a Path>,
    pub(crate) input: &'a [u8],
    /// Whether git looks for the parents of all commits, also in a shallow repository.
    pub(crate) ignores_shallow: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(directory: &'a Path, subcommand: &'a str, arguments: &'a [&'a str]) -> Self {
        Self {
            directory,
            config: &[],
            subcommand,
            arguments,
            index: None,
            input: b"",
            ignores_shallow: false,
        }
    }

    /// Runs git, as [`run`] does. Returns what it prints.
    pub(crate) async fn output(self) -> Result<Vec<u8>> {
        let mut command = Command::new("git");
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        if let Some(index) = self.index {
            command.env("GIT_INDEX_FILE", index);
        }
        if self.ignores_shallow {
            command.env("GIT_SHALLOW_FILE", "");
        }
        let mut child = command
            // git's file system monitor would keep watching the staging directory, which is
            // renamed.
            .args(["-c", "core.fsmonitor=false"])
            .args(self.config.iter().flat_map(|setting| ["-c", *setting]))
            .arg(self.subcommand)
            .args(self.arguments)
            .current_dir(self.directory)
            // `clone` writes `packed-refs` and `HEAD` itself, which a reftable repository doesn't
            // read. git before 2.44 ignores this variable, but has no other format either.
            .env("GIT_DEFAULT_REF_FORMAT", "files")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("can't run git: is it installed?")?;
        let leader = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let mut group = ProcessGroup(leader);
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // git may end before it has read all. Its exit code says what that means.
                stdin.write_all(self.input).await.ok();
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        let output = output?;
        // git has been waited for: its process id may now belong to another group.
        group.0 = None;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.trim();
        let details = if stderr.is_empty() {
            String::new()
        } else {
            format!(": {stderr}")
        };
        let program = format!("git {}", self.subcommand);
        Err(CliError::ProgramFailed { program, details }.into())
    }
}

/// Runs a git command that only asks. Returns what it prints, or `None` if it fails.
///
/// It asks about the repository around `directory` or, without one, about the repository that git
/// finds from here.
pub(crate) fn ask(directory: Option<&Path>, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = std::process::Command::new("git");
    if let Some(directory) = directory {
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        command.arg("-C").arg(directory);
    }
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then_some(output.stdout)
}

/// Runs a git command that only asks about the repository around `directory`. Returns the first
/// line that it prints, or `None` if it fails.
pub(crate) fn line(directory: &Path, arguments: &[&str]) -> Option<String> {
    let said = ask(Some(directory), arguments)?;
    let text = String::from_utf8_lossy(&said);
    text.lines().next().map(str::to_owned)
}

/// Returns the top of the work tree around `directory`, or `None` if there is none.
pub(crate) fn top_of_work_tree(directory: &Path) -> Option<PathBuf> {
    let said = ask(Some(directory), &["rev-parse", "--show-toplevel"])?;
    let top = said.strip_suffix(b"\n").filter(|top| !top.is_empty())?;
    Some(OsStr::from_bytes(top).into())
}

/// Returns the names of the settings in a repository's own configuration that match `pattern`.
pub(crate) fn settings(directory: &Path, pattern: &str) -> Vec<String> {
    let arguments = ["config", "--local", "--name-only", "--get-regexp", pattern];
    let said = ask(Some(directory), &arguments).unwrap_or_default();
    let names = String::from_utf8_lossy(&said);
    names.lines().map(str::to_owned).collect()
}
