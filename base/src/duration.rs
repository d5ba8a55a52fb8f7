//! Serde functions for durations as people write them: `90s`, `2h 30m`, `90days`.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&ShownDuration(*duration))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Written)
}

/// A duration in a file.
struct Written;

impl Visitor<'_> for Written {
    type Value = Duration;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("a time with a unit, in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        let parsed = humantime::parse_duration(text);
        parsed.map_err(|error| E::custom(format!("it must be a time with a unit: {error}")))
    }
}

/// A duration for people. Its longest unit is the day.
struct ShownDuration(Duration);

impl Display for ShownDuration {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let day = Duration::from_hours(24).as_secs();
        let days = self.0.as_secs() / day;
        let rest = Duration::new(self.0.as_secs() % day, self.0.subsec_nanos());
        // humantime alone prints `90days` as `2months 29days 2h 52m 48s`: its month has 30.44 days.
        // The rest is shorter than a day, so humantime prints no longer unit for it.
        let unit = if days == 1 { "day" } else { "days" };
        match (days, rest.is_zero()) {
            (0, _) => write!(formatter, "{}", humantime::format_duration(rest)),
            (_, true) => write!(formatter, "{days}{unit}"),
            (_, false) => {
                let rest = humantime::format_duration(rest);
                write!(formatter, "{days}{unit} {rest}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_duration_has_days_and_reads_back_equal() {
        for (read, shown) in [
            ("0s", "0s"),
            ("500ms", "500ms"),
            ("90s", "1m 30s"),
            ("90m", "1h 30m"),
            ("24h", "1day"),
            ("36h", "1day 12h"),
            ("30days", "30days"),
            ("90days", "90days"),
            ("1year", "365days 6h"),
            ("18446744073709551615s", "213503982334601days 7h 15s"),
        ] {
            let duration = humantime::parse_duration(read).unwrap();

            let printed = ShownDuration(duration).to_string();

            assert_eq!(printed, shown);
            assert_eq!(humantime::parse_duration(&printed).unwrap(), duration);
        }
    }
}
