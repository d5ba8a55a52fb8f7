//! Parses the `Range` header (RFC 9110 section 14.2).

use std::ops::Range;

/// The range that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole: the header is absent or malformed, or has several ranges.
    All,
    /// One half-open range of bytes. It is not empty.
    Part(Range<u64>),
    /// A range beyond the end.
    Unsatisfiable,
}

/// Parses the value of a `Range` header for a resource of `len` bytes.
pub(super) fn parse(value: &str, len: u64) -> RequestedRange {
    let Some((first, last)) = value
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return RequestedRange::All;
    };
    let wanted = match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => len.saturating_sub(suffix)..len,
        (Some(first), None) if last.is_empty() => first..len,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
        _ => return RequestedRange::All,
    };
    if wanted.start < wanted.end {
        RequestedRange::Part(wanted)
    } else {
        RequestedRange::Unsatisfiable
    }
}

/// Parses a number that consists of digits only. A number that is too large becomes `u64::MAX`,
/// because a range may end beyond the end of the resource.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn single_and_suffix_ranges() {
        assert_eq!(parse("bytes=0-9", 100), RequestedRange::Part(0..10));
        assert_eq!(parse("bytes=90-", 100), RequestedRange::Part(90..100));
        assert_eq!(
            parse("bytes=90-999999999999999999999999", 100),
            RequestedRange::Part(90..100)
        );
        assert_eq!(parse("bytes=-10", 100), RequestedRange::Part(90..100));
        assert_eq!(parse("bytes=-1000", 100), RequestedRange::Part(0..100));
    }

    #[test]
    fn beyond_the_end_is_unsatisfiable() {
        assert_eq!(parse("bytes=100-", 100), RequestedRange::Unsatisfiable);
        assert_eq!(parse("bytes=100-200", 100), RequestedRange::Unsatisfiable);
        assert_eq!(parse("bytes=-0", 100), RequestedRange::Unsatisfiable);
    }

    #[test]
    fn malformed_and_several_ranges_mean_all() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(parse(value, 100), RequestedRange::All, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within(value in "bytes=[0-9]{0,4}-[0-9]{0,4}", len in 0_u64..2000) {
            if let RequestedRange::Part(range) = parse(&value, len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
