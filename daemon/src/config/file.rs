//! Reading the configuration file. Errors name the line and, for unknown keys, the likely key.

use std::path::Path;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::{Config, former_keys};
use crate::base::{ConfigError, redact};

/// The similarity from which an unknown key counts as a misspelling of a known one: 0 is unlike, 1
/// is equal.
const MIN_SIMILARITY: f64 = 0.7;

impl Config {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let in_file = |(line, source): (usize, ConfigError)| ConfigError::InFile {
            path: path.to_owned(),
            line,
            source: Box::new(source),
        };
        parse(&text).map_err(in_file)
    }
}

/// Parses and checks `text`. Returns an error with the number of its line.
fn parse(text: &str) -> Result<Config, (usize, ConfigError)> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| explain(text, &error))?;
    let mut config = Config::deserialize(deserializer).map_err(|error| explain(text, &error))?;
    config.derive();
    config.check().map_err(|error| {
        let line = match &error {
            ConfigError::Value { key, value, .. } => {
                // Of a table such as [upstreams], the value is the name of the bad entry. If the
                // key isn't in the file, because a required one is missing, its section is.
                let section = || line_of(text, key.rsplit_once('.')?.0);
                let of_key = line_of(text, &format!("{key}.{value}")).or(line_of(text, key));
                of_key.or_else(section)
            }
            _ => None,
        };
        (line.unwrap_or(1), error)
    })?;
    Ok(config)
}

/// Turns an error of the `toml` crate into ours.
fn explain(text: &str, error: &toml::de::Error) -> (usize, ConfigError) {
    let offset = error.span().map_or(0, |span| span.start);
    // The error's `Display` would quote the line of the file, which may contain credentials.
    let message = redact(error.message().trim());
    let explained = match message.strip_prefix("unknown field `") {
        Some(_) => unknown_key(text, offset, &message),
        None => ConfigError::Syntax { message },
    };
    (line_at(text, offset), explained)
}

/// Makes the error for an unknown key, with advice.
fn unknown_key(text: &str, offset: usize, message: &str) -> ConfigError {
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
    let advice = former.or_else(elsewhere).or_else(similar);
    ConfigError::UnknownKey { key, advice }
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
fn line_of(text: &str, key: &str) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain;

    fn explained(text: &str) -> (usize, String) {
        let (line, error) = parse(text).unwrap_err();
        (line, chain(&error))
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_advice() {
        for (text, line, advice) in [
            (
                "listne = '127.0.0.1:1'",
                1,
                "there is no key listne; did you mean listen?",
            ),
            (
                "\n# x\nfetch_intervall = '2m'",
                3,
                "there is no key fetch_intervall; did you mean fetch_interval?",
            ),
            (
                "[git]\nclone_timeuot = '3h'",
                2,
                "there is no key clone_timeuot; did you mean clone_timeout?",
            ),
            (
                "[git]\nlisten = '127.0.0.1:1'",
                2,
                "there is no key listen; it belongs before the first [section]",
            ),
            (
                "[upstreams]\n[git]\nmax_processes = 3",
                3,
                "there is no key max_processes; it belongs in [git_http]",
            ),
            (
                "[jobs]\nlfs = 'off'",
                2,
                "there is no key lfs; it belongs in [publish]",
            ),
            (
                "keep_snapshots = 3",
                1,
                "there is no key keep_snapshots; it is snapshots in [keep] now",
            ),
            (
                "[store.s3]\nbucket = 'bucket'\nmax_requests = 3",
                3,
                "there is no key max_requests; its value can't be changed any more",
            ),
            (
                "clone_timeout = '3h'",
                1,
                "there is no key clone_timeout; it belongs in [git]",
            ),
            ("colour = 'blue'", 1, "there is no key colour"),
        ] {
            assert_eq!(explained(text), (line, advice.to_owned()));
        }
    }

    #[test]
    fn errors_have_the_line_and_no_secrets() {
        for (text, line) in [
            ("listen = 'x'", 1),
            ("\n\nfetch_interval = 7", 3),
            ("\nfetch_interval = '7 parsecs'", 2),
            ("[jobs]\nupdates = 3\npublishes = 0", 3),
            ("[upstreams]\n'a.org' = 'https://a.org'\n'x' = [", 3),
            ("[upstreams]\n'a.org' = ['https://me:s3cret@a.org']", 2),
            ("\n[upstreams]\n'a.org' = 'ext::me:s3cret@a.org'", 3),
            ("[upstreams]\n'a.org' = 'https://me:s3cret@a.org' x", 2),
            ("log = 'xml'", 1),
            (
                "\n[store.s3]\nbucket = 'bucket'\nendpoint = 'https://me:s3cret@a.org'",
                4,
            ),
            ("\n[store.s3]\nprefix = 'x'", 2),
        ] {
            let (found, error) = explained(text);

            assert_eq!(found, line, "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
