//! Decodes percent-encoding in URL paths.
//!
//! `percent-encoding` accepts a `%` without two digits after it. Here this is an error: a policy
//! and upstream must never read one name in two ways.

/// Decodes `segment`, or returns `None` if its encoding is malformed or the result is not UTF-8.
pub fn decode_percent(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
