//! The exit codes of the program: one table for the code, for the help and for the documents.

/// An exit code and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The exit code.
    pub(crate) number: u8,
    /// Its name in the JSON of an error.
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) text: &'static str,
}

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NO_MOUNT: u8 = 3;
pub(crate) const NO_REPOSITORY: u8 = 4;

/// All exit codes of a failure.
pub(crate) const TABLE: [Meaning; 4] = [
    Meaning {
        number: FAILED,
        name: "failed",
        text: "failure; for doctor and verify, something is wrong",
    },
    Meaning {
        number: USAGE,
        name: "usage",
        text: "the command line is wrong",
    },
    Meaning {
        number: NO_MOUNT,
        name: "no_mount",
        text: "no mount is running, or it does not answer",
    },
    Meaning {
        number: NO_REPOSITORY,
        name: "no_repository",
        text: "the repository does not exist",
    },
];

/// Returns the name of an exit code in JSON.
pub(crate) fn name(number: u8) -> &'static str {
    let mut known = TABLE.iter();
    let meaning = known.find(|meaning| meaning.number == number);
    meaning.map_or("failed", |meaning| meaning.name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Arguments;

    #[test]
    fn help_and_documents_have_the_same_exit_codes() {
        let help = Arguments::command().render_long_help().to_string();
        let page = include_str!("../../docs/command-line.md");
        let rows: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("| ") && line.contains(" | `"))
            .collect();

        for Meaning { number, name, text } in TABLE {
            let line = format!("  {number}  {text}\n");
            assert!(help.contains(&line), "{line}: {help}");
            let row = format!("| {number} | `{name}` | {text} |");
            assert!(rows.contains(&&*row), "{row}: {rows:?}");
        }
    }
}
