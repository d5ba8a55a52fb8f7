//! Joins an error and its causes to one line, for the log and for people.

use std::error::Error;
use std::fmt::Write as _;

/// Returns the messages of `error` and all its causes, from the outermost to the innermost, with ":
/// " between them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        // Writing to a string can't fail.
        write!(text, ": {source}").ok();
        cause = source.source();
    }
    text
}
