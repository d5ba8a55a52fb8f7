//! How this process speaks on standard error: as text or JSON, and with or without progress.
//!
//! The arguments decide it once, at the start.

use std::sync::OnceLock;

use anyhow::Result;
use serde::Serialize;

use crate::output;

/// How a process speaks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speech {
    /// Whether each line is a JSON object. The arguments have `--json`.
    pub(crate) is_json: bool,
    /// Whether progress is left out. The arguments have `--quiet`.
    pub(crate) is_quiet: bool,
}

static SPEECH: OnceLock<Speech> = OnceLock::new();

impl Speech {
    /// Chooses how this process speaks from now on. Only the first choice counts.
    pub(crate) fn choose(self) {
        SPEECH.set(self).ok();
    }

    /// Returns how this process speaks.
    pub(crate) fn chosen() -> Self {
        SPEECH.get().copied().unwrap_or_default()
    }

    /// Returns whether progress is shown.
    pub(crate) fn shows_progress(self) -> bool {
        !self.is_json && !self.is_quiet
    }
}

/// The argument of commands with a result.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct JsonChoice {
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl JsonChoice {
    /// Prints the result of a command: as JSON, or as a line for people.
    pub(crate) fn print(self, result: &impl Serialize, line: &str) -> Result<()> {
        if self.json {
            output::json(result)
        } else {
            output::line(line)
        }
    }

    /// Prints the result of a command that has no line for people.
    pub(crate) fn print_json(self, result: &impl Serialize) -> Result<()> {
        if self.json {
            output::json(result)?;
        }
        Ok(())
    }
}
