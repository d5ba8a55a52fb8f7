//! Numbers of bytes as people read them.

/// Formats a number of bytes for people, in units of 1024: `10.0 MiB`, `335 MiB`.
pub fn readable_bytes(count: u64) -> String {
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
        let shown = [0, 1023, 1024, 10_485_760, 335 << 20, 13 << 30].map(readable_bytes);

        assert_eq!(
            shown,
            [
                "0 B", "1023 B", "1.0 KiB", "10.0 MiB", "335 MiB", "13.0 GiB"
            ]
        );
    }
}
