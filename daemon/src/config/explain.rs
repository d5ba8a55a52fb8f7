//! Explains errors in the configuration file: the line, the key, the reason, and how to write it.

use toml::de::{DeTable, DeValue};

use super::{Config, former_keys};
use crate::base::{ConfigError, redact};

/// The similarity from which an unknown key counts as a misspelling of a known one: 0 is unlike, 1
/// is equal.
const MIN_SIMILARITY: f64 = 0.7;

/// Turns an error of the `toml` crate into ours.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> (usize, ConfigError) {
    let offset = error.span().map_or(0, |span| span.start);
    // The error's `Display` would quote the line of the file, which may contain credentials.
    let message = redact(error.message().trim());
    let keys = keys_at(text, offset);
    let explained = match (message.strip_prefix("unknown field `"), &*keys) {
        (Some(_), _) => unknown_key(text, (offset, &keys), &message),
        // The file is no TOML.
        (None, []) => ConfigError::Syntax { message },
        (None, keys) => ConfigError::WrongValue {
            key: keys.join("."),
            reason: reason(keys, message),
            example: example(keys),
        },
    };
    (line_at(text, offset), explained)
}

/// Returns why a value can't be used, in the words of the person who writes the file.
fn reason(keys: &[String], message: String) -> String {
    let key = keys.last().map_or("", |key| &**key);
    let expects = |kind: &str| message.ends_with(&format!("expected {kind}"));
    let numbers = ["u16", "u32", "u64", "usize"];
    if expects("socket address") || message == "invalid socket address syntax" {
        "it must be an IP address and a port, in quotes".to_owned()
    } else if numbers.into_iter().any(expects) && key.ends_with("_bytes") {
        "it must be a number of bytes, without a unit and without quotes".to_owned()
    } else if numbers.into_iter().any(expects) {
        "it must be a whole number, without quotes".to_owned()
    } else {
        message
    }
}

/// Returns a line that sets a key to its default, if it has one.
fn example(keys: &[String]) -> Option<String> {
    let (last, sections) = keys.split_last()?;
    let mut table = toml::Table::try_from(Config::default()).ok()?;
    for section in sections {
        table = match table.remove(section)? {
            toml::Value::Table(inner) => inner,
            _ => return None,
        };
    }
    match table.remove(last)? {
        toml::Value::Table(_) => None,
        value => {
            let line = toml::Table::from_iter([(last.clone(), value)]);
            Some(line.to_string().trim_end().to_owned())
        }
    }
}

/// Makes the error for an unknown key, with advice. The key is at `offset`; `keys` lead there.
fn unknown_key(text: &str, (offset, keys): (usize, &[String]), message: &str) -> ConfigError {
    // The message has the unknown key and then all known keys of the section, each in backticks.
    let mut quoted = message.split('`').skip(1).step_by(2);
    let key = quoted.next().unwrap_or_default().to_owned();
    let section = section_at(text, offset);
    let former = former_keys::advice(section, &key).map(str::to_owned);
    let elsewhere = || match section_of(&key).filter(|known| known != section)?.as_str() {
        "" => Some("it belongs before the first [section]".to_owned()),
        known => Some(format!("it belongs in [{known}]")),
    };
    let similar = || {
        quoted
            .map(|known| (strsim::normalized_damerau_levenshtein(&key, known), known))
            .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
            .max_by(|left, right| left.0.total_cmp(&right.0))
            .map(|(_, known)| format!("did you mean {known}?"))
    };
    let unquoted = unquoted_host(text, offset, keys)
        .map(|host| format!("write the name of the host in quotes: {host:?}"));
    let advice = unquoted.or(former).or_else(elsewhere).or_else(similar);
    ConfigError::UnknownKey { key, advice }
}

/// Returns the name of a host that was written without quotes: for TOML, `github.com = …` is a key
/// `com` in a table `github`.
fn unquoted_host(text: &str, offset: usize, keys: &[String]) -> Option<String> {
    let [section, host @ .., _] = keys else {
        return None;
    };
    let of_hosts = ["upstreams", "upstream_auth"].contains(&&**section);
    let (before, rest) = text.split_at_checked(offset)?;
    if !of_hosts || host.is_empty() || !before.ends_with('.') {
        return None;
    }
    let is_of_host = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let rest = rest.split(|letter| !is_of_host(letter)).next()?;
    Some(format!("{}.{rest}", host.join(".")))
}

/// Returns the section that a key of this name belongs to: "" for the keys before the first
/// section, or `None` if there is no such key.
fn section_of(key: &str) -> Option<String> {
    let defaults = toml::Table::try_from(Config::default()).ok()?;
    if defaults.contains_key(key) {
        return Some(String::new());
    }
    let has_key = |section: &toml::Value| section.get(key).is_some();
    let mut sections = defaults.into_iter();
    sections.find_map(|(name, section)| has_key(&section).then_some(name))
}

/// Returns the section that the line at `offset` is in: "" before the first section.
fn section_at(text: &str, offset: usize) -> &str {
    let before = text.get(..offset).unwrap_or(text);
    let headers = before.lines().rev().map(str::trim);
    let mut headers =
        headers.filter_map(|line| line.strip_prefix('[')?.split(']').next().map(str::trim));
    headers.next().unwrap_or_default()
}

/// Returns the number of the line at `offset` in bytes, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|&&byte| byte == b'\n').count()
}

/// Returns the line of a key with its sections, such as `git.pack_threads`, `upstreams.github.com`
/// or `store.s3.bucket`.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    Some(line_at(text, offset_of(document.get_ref(), key)?))
}

/// Returns the offset of a key, in bytes from the start of the file.
fn offset_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let name = |wanted: &str| table.keys().find(|name| name.get_ref() == wanted);
    // First the whole key: the name of a host has dots, too.
    if let Some(name) = name(key) {
        return Some(name.span().start);
    }
    let (section, rest) = key.split_once('.')?;
    match table.get(section)?.get_ref() {
        DeValue::Table(inner) => offset_of(inner, rest),
        _ => None,
    }
}

/// Returns the keys that lead to the value or to the key at `offset`, or none if the text is no
/// TOML.
fn keys_at(text: &str, offset: usize) -> Vec<String> {
    let document = DeTable::parse(text).ok();
    document.map_or_else(Vec::new, |document| keys_in(document.get_ref(), offset))
}

fn keys_in(table: &DeTable<'_>, offset: usize) -> Vec<String> {
    for (name, value) in table {
        let is_name = name.span().contains(&offset);
        let mut inner = match value.get_ref() {
            // The span of a table may be its header, which has the names of outer tables.
            DeValue::Table(inner) if !is_name => keys_in(inner, offset),
            _ => Vec::new(),
        };
        if is_name || !inner.is_empty() || value.span().contains(&offset) {
            inner.insert(0, name.get_ref().to_string());
            return inner;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain;

    fn explained(text: &str) -> String {
        let error = toml::from_str::<Config>(text).unwrap_err();
        chain(&explain(text, &error).1)
    }

    #[test]
    fn a_wrong_value_names_its_key_the_rule_and_an_example() {
        let address = "listen can't be used: it must be an IP address and a port, in quotes; \
             for example: listen = \"127.0.0.1:8080\"";
        for (text, expected) in [
            ("listen = '8080'", address),
            ("listen = 8080", address),
            ("listen = 'localhost:8080'", address),
            (
                "[store]\ndisk_bytes = '10G'",
                "store.disk_bytes can't be used: it must be a number of bytes, without a unit and \
                 without quotes; for example: disk_bytes = 107374182400",
            ),
            (
                "[jobs]\nupdates = '3'",
                "jobs.updates can't be used: it must be a whole number, without quotes; \
                 for example: updates = 32",
            ),
            (
                "[keep]\nage = 3",
                "keep.age can't be used: invalid type: integer `3`, expected a time with a unit, \
                 in quotes; for example: age = \"1day\"",
            ),
            (
                "fetch_interval = '7'",
                "fetch_interval can't be used: it must be a time with a unit: time unit needed, \
                 for example 7sec or 7ms; for example: fetch_interval = \"1m\"",
            ),
            (
                "[upstreams]\n'github.com' = 3",
                "upstreams.github.com can't be used: invalid type: integer `3`, expected a URL, \
                 or a table of url and ignore_case; for example: \
                 \"github.com\" = \"https://github.com\"",
            ),
            (
                "[store.s3]\nbucket = 3",
                "store.s3.bucket can't be used: invalid type: integer `3`, expected a string",
            ),
        ] {
            assert_eq!(explained(text), expected);
        }
    }

    #[test]
    fn the_name_of_a_host_without_quotes_is_recognized() {
        for (text, key, host) in [
            ("[upstreams]\ngithub.com = 'https://x'", "com", "github.com"),
            (
                "[upstreams]\na.org = 'https://a'\ngit.a.org = 'https://x'",
                "org",
                "a.org",
            ),
            (
                "[upstream_auth.git.example.com]\ntoken_env = 'X'",
                "example",
                "git.example.com",
            ),
            ("[upstreams.git.a.org]\nurl = 'x'", "a", "git.a.org"),
        ] {
            let advice = format!("write the name of the host in quotes: {host:?}");
            assert_eq!(explained(text), format!("there is no key {key}; {advice}"));
        }
        for text in [
            "[upstreams.'github.com']\nurll = 'https://x'",
            "[upstreams.localhost]\nurll = 'https://x'",
            "[upstreams]\nlocalhost = { urll = 'https://x' }",
        ] {
            assert_eq!(explained(text), "there is no key urll; did you mean url?");
        }
    }
}
