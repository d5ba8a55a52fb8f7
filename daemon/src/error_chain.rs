//! Errors with their causes as one line, for the log and for people.

use std::error::Error;
use std::fmt::Write as _;

/// An error with all its causes, for the log and for people.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        // Writing to a string can't fail.
        write!(text, ": {source}").ok();
        cause = source.source();
    }
    text
}
