//! [`JsonChoice`]: the argument `--json`, and the result of a command in the chosen form.

use anyhow::Result;
use serde::Serialize;

use crate::output;

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
