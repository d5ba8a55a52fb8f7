//! Removes secrets from the lines of a report.
//!
//! A secret is found in two ways: by its value, if it is in a file or in the environment of this
//! user; and by its place, such as the query of a URL or the value of a header.

use std::path::Path;

const MASK: &str = "***";
/// A value shorter than this is not looked for: it would be found in innocent words.
const LEAST_LEN: usize = 6;
/// At most this many bytes of a token file.
const MAX_TOKEN_LEN: usize = 4096;
/// Parts of names of variables whose values are secret.
const SECRET_NAMES: [&str; 8] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "ACCESS_KEY",
    "API_KEY",
    "CREDENTIAL",
    "AUTHORIZATION",
];
/// Names of headers and settings. All that follows in the line is secret.
const TO_END_OF_LINE: [&str; 7] = [
    "authorization",
    "extraheader",
    "cookie",
    "x-amz-security-token",
    "private-token",
    "api-key",
    "x-vault-token",
];
/// Texts before a secret word, in lower case.
const BEFORE_WORD: [&str; 12] = [
    "bearer ",
    "basic ",
    "token=",
    "password=",
    "passwd=",
    "secret=",
    "access_key=",
    "signature=",
    "credential=",
    "token: ",
    "password: ",
    "secret: ",
];
/// The beginnings of tokens that services give out, in lower case.
const BEGINNINGS: [&str; 10] = [
    "cwfs_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "eyj",
    "akia",
    "asia",
];
/// At least this many characters follow such a beginning.
const LEAST_TOKEN: usize = 12;

/// The secrets of this user, and the places where others are.
pub(super) struct Redactor {
    /// The values, the longest first: a short one may be a part of a long one.
    known: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.known.len();
        formatter
            .debug_struct("Redactor")
            .field("known", &count)
            .finish()
    }
}

impl Redactor {
    /// Learns the secrets in `token_files` and in the environment.
    pub(super) fn new<'a>(token_files: impl Iterator<Item = &'a Path>) -> Self {
        let contents = token_files.filter_map(|path| std::fs::read(path).ok());
        let words = contents.flat_map(|mut bytes| {
            bytes.truncate(MAX_TOKEN_LEN);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_string_lossy().to_ascii_uppercase();
            let is_secret = SECRET_NAMES.iter().any(|part| name.contains(part));
            is_secret.then(|| value.to_string_lossy().trim().to_owned())
        });
        // The value may be the path of a file with the secret, which tells nothing.
        let is_value = |text: &String| text.len() >= LEAST_LEN && !text.starts_with('/');
        let mut known: Vec<_> = words.chain(variables).filter(is_value).collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self { known }
    }

    /// Returns the line without its secrets, and how many there were.
    pub(super) fn redact(&self, line: &str) -> (String, usize) {
        let before = line.matches(MASK).count();
        let mut line = line.to_owned();
        for secret in &self.known {
            line = line.replace(secret.as_str(), MASK);
        }
        line = cachewfs_base::redact(&line);
        line = mask_queries(&line);
        line = mask_words(&line);
        line = mask_ends(&line);
        let count = line.matches(MASK).count().saturating_sub(before);
        (line, count)
    }
}

/// Returns whether a URL or another word ends before this character.
fn ends_word(letter: char) -> bool {
    letter.is_whitespace() || letter.is_control() || "\"'<>`()[]{}|\\,;".contains(letter)
}

/// Masks the query and the fragment of each URL: a signed URL has its signature there.
fn mask_queries(line: &str) -> String {
    let mut parts = line.split("://");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked.push_str("://");
        let url_len = part.find(ends_word).unwrap_or(part.len());
        let (url, rest) = part.split_at(url_len);
        match url.find(['?', '#']) {
            Some(at) => {
                let (path, query) = url.split_at(at);
                masked.push_str(path);
                masked.extend(query.chars().take(1));
                masked.push_str(MASK);
            }
            None => masked.push_str(url),
        }
        masked.push_str(rest);
    }
    masked
}

/// Masks the words after [`BEFORE_WORD`], and those with one of [`BEGINNINGS`].
fn mask_words(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        // The letters of ASCII keep their places and lengths.
        let is_start = masked
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_alphanumeric());
        let begins = |pattern: &&&str| {
            let head = rest.get(..pattern.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(pattern))
        };
        let is_end = |letter: char| ends_word(letter) || letter == '&';
        if let Some(pattern) = BEFORE_WORD.iter().find(begins) {
            let (head, tail) = rest.split_at(pattern.len());
            let quotes = tail.len() - tail.trim_start_matches(['"', '\'']).len();
            let (quotes, tail) = tail.split_at(quotes);
            let word_len = tail.find(is_end).unwrap_or(tail.len());
            masked.push_str(head);
            masked.push_str(quotes);
            if word_len > 0 {
                masked.push_str(MASK);
            }
            rest = tail.split_at(word_len).1;
        } else if is_start
            && let Some(pattern) = BEGINNINGS.iter().find(begins)
            && let word_len = rest.find(is_end).unwrap_or(rest.len())
            && word_len >= pattern.len() + LEAST_TOKEN
        {
            masked.push_str(MASK);
            rest = rest.split_at(word_len).1;
        } else {
            masked.push(first);
            rest = rest.split_at(first.len_utf8()).1;
        }
    }
    masked
}

/// Masks all that follows the name of a header with credentials.
fn mask_ends(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let places = TO_END_OF_LINE.iter().flat_map(|name| {
        let found = lower.match_indices(name);
        found.map(|(at, name)| at + name.len())
    });
    let ends = places.filter_map(|at| {
        // Without a separator it is a word of a sentence.
        let after = line.get(at..)?.trim_start_matches(['"', '\'', '\\', ' ']);
        after.starts_with([':', '=', '[']).then_some(at + 1)
    });
    match ends.min().and_then(|at| line.get(..at)) {
        Some(head) if !line.ends_with(MASK) || head.len() + 4 < line.len() => {
            format!("{head} {MASK}")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(line: &str) -> String {
        let redactor = Redactor {
            known: vec!["hunter2".to_owned()],
        };
        redactor.redact(line).0
    }

    #[test]
    fn secrets_are_found_by_value_and_by_place() {
        for (line, expected) in [
            ("a hunter2 b", "a *** b"),
            ("https://u:p@h/x and ok", "https://***@h/x and ok"),
            (
                r#""url": "https://b/k?X-Amz-Signature=abc&y=1", "n": 1"#,
                r#""url": "https://b/k?***", "n": 1"#,
            ),
            ("http://h/a#access=1 rest", "http://h/a#*** rest"),
            ("Authorization: Basic YWJj more", "Authorization: ***"),
            (
                r#"{"authorization": "Bearer abc"}"#,
                r#"{"authorization" ***"#,
            ),
            ("got Bearer abc.def, again", "got Bearer ***, again"),
            ("X-Amz-Signature=12ab&x=1", "X-Amz-Signature=***&x=1"),
            ("the token cwfs_0123456789abcdef.", "the token ***"),
            ("password: 'x y'", "password: '*** y'"),
            ("Cookie: a=b; c=d", "Cookie: ***"),
            (
                "no authorization yet; Authorization=x y",
                "no authorization yet; Authorization= ***",
            ),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn ordinary_lines_stay_as_they_are() {
        for line in [
            "token_file=/etc/cachewfs/token",
            "  \"token_file\": \"/etc/cachewfs/token\",",
            "daemon token http://h:8080: none is needed",
            "http://h:8080/api/v1/repos answered 404",
            "no authorization was needed",
            "Asia and akia",
            "",
        ] {
            assert_eq!(
                Redactor { known: Vec::new() }.redact(line),
                (line.to_owned(), 0)
            );
        }
    }
}
