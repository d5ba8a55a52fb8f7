//! Running git.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::error::CliError;

/// Runs git in `directory`; it ends when the future is dropped.
pub(crate) async fn run(directory: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        // Those of a hook or alias that runs us would lead to another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("can't run git: is it installed?")?;
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
