//! Printing to standard output and standard error.
//!
//! Much of the output is text from a daemon, an upstream or another user. A terminal would obey the
//! control characters in it. So the whole program prints through this file, which replaces control
//! characters and cuts text that is too long.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Result;
use cachewfs_format::{is_printable, printable};
use serde::Serialize;

use crate::error::CliError;

/// At most this many characters in a line: enough for two paths of 4096 bytes and some words.
const MAX_LINE_LEN: usize = 10_000;
/// At most this many characters in a cell of a table, or in the text of a progress bar.
const MAX_CELL_LEN: usize = 300;

/// Prints one line of the command's result to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    write(format!("{}\n", printable(text, MAX_LINE_LEN)).as_bytes())
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
    let json = serde_json::to_string_pretty(value)?;
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
    Ok(text)
}

/// Prints one line to standard error: an error, a hint or a warning.
pub(crate) fn error(text: &str) {
    // If standard error is closed, there is no other place to report that.
    writeln!(io::stderr().lock(), "{}", printable(text, MAX_LINE_LEN)).ok();
}

/// Makes text safe and short enough for a cell of a table, or for a progress bar.
pub(crate) fn cell(text: &str) -> String {
    printable(text, MAX_CELL_LEN).into_owned()
}

/// Formats a number of bytes for people, in units of 1024: `10.0 MiB`, `335 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let shown = [0, 1023, 1024, 10_485_760, 335 << 20, 13 << 30].map(bytes);

        assert_eq!(
            shown,
            [
                "0 B", "1023 B", "1.0 KiB", "10.0 MiB", "335 MiB", "13.0 GiB"
            ]
        );
    }

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
