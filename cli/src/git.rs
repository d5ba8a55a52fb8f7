//! Running git.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::error::CliError;

/// Variables of a hook or an alias that runs us. They would lead git to another repository
/// (`git rev-parse --local-env-vars`), or change how it makes one.
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

/// git and the processes that it starts: a checkout has workers, which would go on writing.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails where all of them have ended.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

/// Runs `git <subcommand>` in `directory`, with `config` as the value of each `-c`. If the future is
/// dropped, git and what it started end.
///
/// The user's configuration applies, as it does to `git clone`, except for the settings that decide
/// which files a new repository has: versions of git differ in their defaults.
pub(crate) async fn run(
    directory: &Path,
    config: &[&str],
    subcommand: &str,
    arguments: &[&str],
) -> Result<()> {
    let mut command = Command::new("git");
    for name in FOREIGN_VARIABLES {
        command.env_remove(name);
    }
    let child = command
        // Its daemon would watch the directory under the name that it has for now.
        .args(["-c", "core.fsmonitor=false"])
        .args(config.iter().flat_map(|setting| ["-c", *setting]))
        .arg(subcommand)
        .args(arguments)
        .current_dir(directory)
        // We write `packed-refs` and `HEAD`. git before 2.44 ignores this, and has no other format.
        .env("GIT_DEFAULT_REF_FORMAT", "files")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("can't run git: is it installed?")?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let mut group = ProcessGroup(leader);
    let output = child.wait_with_output().await?;
    group.0 = None;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let details = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    let program = format!("git {subcommand}");
    Err(CliError::ProgramFailed { program, details }.into())
}
