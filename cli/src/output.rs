//! All that is printed.

use std::io::{self, Write as _};

/// Prints a line for the person or the program that asked. A closed pipe ends the output quietly.
pub(crate) fn line(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

/// Prints a line that is no result.
pub(crate) fn error(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
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
}
