//! A failure as people and programs see it: a code, a message and a next step.

use serde::{Deserialize, Serialize};

use crate::exit_code;

/// A line of standard error in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpokenLine {
    /// The command failed. At most one line says so, and it is the last one.
    Error(Failure),
    /// The command goes on.
    Warning { message: String },
}

/// The failure of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The name of the exit code.
    code: String,
    pub(crate) exit_code: u8,
    /// The error with its causes.
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_step: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit_code: u8, message: String, next_step: Option<String>) -> Self {
        Self {
            code: exit_code::name(exit_code).to_owned(),
            exit_code,
            message,
            next_step,
        }
    }

    /// Returns the failure that a background process printed as a [`SpokenLine`]. If it printed
    /// none, because it was killed for example, all of its text is the message.
    pub(crate) fn printed(text: &str) -> Self {
        let mut lines = text.lines().rev();
        let failure = lines.find_map(|line| match serde_json::from_str(line) {
            Ok(SpokenLine::Error(failure)) => Some(failure),
            _ => None,
        });
        failure.unwrap_or_else(|| {
            let message = match text.trim() {
                "" => "the process in the background ended before the mount was ready",
                text => text,
            };
            Self::new(exit_code::FAILED, message.to_owned(), None)
        })
    }

    /// Returns the failure to parse the arguments.
    pub(crate) fn of_arguments(error: &clap::Error) -> Self {
        let text = error.to_string();
        // Below the first paragraph are tips and the usage.
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<_> = paragraph.split_whitespace().collect();
        let message = words.join(" ");
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let next_step = "`cachewfs help` and `cachewfs help COMMAND` show the arguments".to_owned();
        Self::new(exit_code::USAGE, message.to_owned(), Some(next_step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_background_process_keeps_its_code_and_next_step() {
        let failure = Failure::new(3, "no mount".to_owned(), Some("mount it".to_owned()));
        let line = serde_json::to_string(&SpokenLine::Error(failure.clone())).unwrap();
        let warning = r#"{"warning":{"message":"mounted, but"}}"#;

        let printed = Failure::printed(&format!("{warning}\n{line}\n"));

        assert_eq!(printed, failure);
        assert_eq!(
            line,
            r#"{"error":{"code":"no_mount","exit_code":3,"message":"no mount","next_step":"mount it"}}"#
        );
        assert_eq!(Failure::printed("panicked\n").message, "panicked");
    }

    #[test]
    fn wrong_arguments_are_one_line() {
        let parsed = <crate::args::Arguments as clap::Parser>::try_parse_from(["cachewfs", "pin"]);

        let failure = Failure::of_arguments(&parsed.unwrap_err());

        assert_eq!(
            failure.message,
            "the following required arguments were not provided: <URL>"
        );
        assert_eq!(failure.exit_code, 2);
    }
}
