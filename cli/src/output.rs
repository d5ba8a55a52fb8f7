//! Printing to standard output and standard error.
//!
//! Much of the output is text from a daemon, an upstream or another user. A terminal would obey the
//! control characters in it. So the whole program prints through this file, which replaces control
//! characters and cuts text that is too long.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use cachewfs_format::{is_printable, printable};
pub(crate) use cachewfs_fuse::readable_bytes as bytes;
use serde::Serialize;

use crate::error::CliError;
use crate::failure::SpokenLine;
use crate::speech::Speech;

/// At most this many characters in a line: enough for two paths of 4096 bytes and some words.
const MAX_LINE_LEN: usize = 10_000;
/// At most this many characters in a cell of a table, or in the text of a progress bar.
const MAX_CELL_LEN: usize = 300;
/// The width and height of a terminal that doesn't tell them, such as a serial line.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Prints one line of the command's result to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    write(format!("{}\n", printable_line(text)).as_bytes())
}

/// Returns `text` as [`line()`] prints it.
pub(crate) fn printable_line(text: &str) -> Cow<'_, str> {
    printable(text, MAX_LINE_LEN)
}

/// Returns the width and the height of the terminal that standard output is, or `None` if it is
/// none.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let output = io::stdout();
    if !output.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(output).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(size.map_or(USUAL_SIZE, |size| {
        (usize::from(size.ws_col), usize::from(size.ws_row))
    }))
}

/// Prints bytes unchanged. Callers pass only bytes that this program made itself.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    Ok(written.map_err(CliError::Output)?)
}

/// Prints `value` as JSON. Characters that aren't printable are escaped, so no string changes its
/// value.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    write(format!("{}\n", printable_json(value)?).as_bytes())
}

fn printable_json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(escaped(&serde_json::to_string_pretty(value)?))
}

/// Escapes the characters of JSON that aren't printable, but for line feeds.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || is_printable(character) {
            text.push(character);
            continue;
        }
        // Outside of its strings, JSON is ASCII, and serde_json escapes the control characters of
        // ASCII. So this character is inside a string, where a `\u` escape keeps the value.
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(text, "\\u{unit:04x}").ok();
        }
    }
    text
}

/// Prints one line to standard error: an error, a hint or a warning. If the process speaks JSON,
/// this is a warning, because `report.rs` prints its error with [`json_error`].
pub(crate) fn error(text: &str) {
    if Speech::chosen().is_json {
        let message = text.strip_prefix("cachewfs: ").unwrap_or(text).to_owned();
        return json_error(&SpokenLine::Warning { message });
    }
    // If standard error is closed, there is no other place to report that.
    writeln!(io::stderr().lock(), "{}", printable(text, MAX_LINE_LEN)).ok();
}

/// Prints one line to standard error, as JSON.
pub(crate) fn json_error(line: &SpokenLine) {
    if let Ok(json) = serde_json::to_string(line) {
        writeln!(io::stderr().lock(), "{}", escaped(&json)).ok();
    }
}

/// Returns how many bytes a command has fetched, as the end of a sentence.
pub(crate) fn fetched(count: u64) -> String {
    match count {
        0 => "all of it was in the cache".to_owned(),
        _ => format!("fetched {}", bytes(count)),
    }
}

/// Makes text safe and short enough for a cell of a table, or for a progress bar.
pub(crate) fn cell(text: &str) -> String {
    printable(text, MAX_CELL_LEN).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_values_and_has_no_control_characters() {
        let value = [
            "\u{1b}[2J\n",
            "\u{9b}2J\u{7f}",
            "a\u{202e}b\u{2028}",
            "日本 🦀",
        ];

        let text = printable_json(&value).unwrap();

        let obeyed = |character: &char| *character != '\n' && !is_printable(*character);
        assert_eq!(text.chars().find(obeyed), None, "{text:?}");
        assert!(text.contains("日本 🦀"));
        assert_eq!(serde_json::from_str::<[String; 4]>(&text).unwrap(), value);
    }
}
