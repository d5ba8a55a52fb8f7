//! Hides the credentials in URLs, before a text is logged or shown.

/// Replaces the credentials of all URLs in `text` by `***`.
pub fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    for (index, part) in text.split("://").enumerate() {
        if index == 0 {
            redacted.push_str(part);
            continue;
        }
        redacted.push_str("://");
        let is_end = |letter: char| letter == '/' || letter == '\'' || letter.is_whitespace();
        let authority = part.split(is_end).next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((credentials, _)) => {
                redacted.push_str("***");
                redacted.push_str(part.strip_prefix(credentials).unwrap_or_default());
            }
            None => redacted.push_str(part),
        }
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacts_every_url_of_a_text() {
        let text = "fatal: 'https://a:b@x.org/y' and http://c@z/ but not file:///d@e or f@g";

        assert_eq!(
            redact(text),
            "fatal: 'https://***@x.org/y' and http://***@z/ but not file:///d@e or f@g"
        );
    }
}
