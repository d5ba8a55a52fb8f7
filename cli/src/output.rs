//! All that is printed.
//!
//! Much of it is text from a daemon, an upstream or another user. So everything goes through here, where
//! characters that a terminal would obey are replaced, and text that is too long is cut.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Result;
use cachewfs_format::{is_printable, printable};
use serde::Serialize;

use crate::error::CliError;

/// The longest line, in characters: two paths, and some words.
const MAX_LINE_LEN: usize = 10_000;
/// The longest cell of a table, or step of a progress bar.
const MAX_CELL_LEN: usize = 300;

/// Prints a line for the person or the program that asked.
pub(crate) fn line(text: &str) -> Result<()> {
    write(format!("{}\n", printable(text, MAX_LINE_LEN)).as_bytes())
}

/// Prints this program's own bytes as they are: no text of another party.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    Ok(written.map_err(CliError::Output)?)
}

/// Prints JSON. Every string has its value still: what isn't printable is escaped.
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
        // serde_json escapes control characters of ASCII. The others are inside strings, too: outside,
        // JSON is ASCII.
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(text, "\\u{unit:04x}").ok();
        }
    }
    Ok(text)
}

/// Prints a line that is no result.
pub(crate) fn error(text: &str) {
    // If standard error is closed, nobody can be told.
    writeln!(io::stderr().lock(), "{}", printable(text, MAX_LINE_LEN)).ok();
}

/// Returns text for a cell of a table, or a step of a progress bar.
pub(crate) fn cell(text: &str) -> String {
    printable(text, MAX_CELL_LEN).into_owned()
}

/// Bytes for people: three digits at most, in units of 1024.
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
