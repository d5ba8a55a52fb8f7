//! Running git.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::error::CliError;

/// git and the processes that it starts: a checkout has workers, which would go on writing.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails where all of them have ended.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

/// Runs git in `directory`; it and what it started end when the future is dropped.
pub(crate) async fn run(directory: &Path, arguments: &[&str]) -> Result<()> {
    let child = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        // Those of a hook or alias that runs us would lead to another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("can't run git: is it installed?")?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let mut group = Group(leader);
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
    let program = format!(
        "git {}",
        arguments
            .iter()
            .find(|word| !word.starts_with('-'))
            .unwrap_or(&"")
    );
    Err(CliError::ProgramFailed { program, details }.into())
}
