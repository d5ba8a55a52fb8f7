//! The checked name of a repository, `<host>/<path>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{
    MAX_HOST_LEN, MAX_REPO_NAME_LEN, MAX_REPO_NAME_SEGMENT_LEN, MAX_REPO_NAME_SEGMENTS,
};
use crate::{Error, Result};

/// The name of a repository: a host (optionally with a port) and a path of one or more segments.
///
/// A `RepoName` is safe as a relative path, as a URL path and as an argument of git. It has only
/// ASCII letters, digits, `._-+~`, slashes and the colon of the port. No segment is `.` or `..`,
/// starts with `-`, or has a meaning for git or the mount (`.git`, `.objects`).
///
/// The canonical spelling has no `.git` at the end. [`RepoName::parse`] accepts both spellings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoName(String);

impl RepoName {
    /// Parses `<host>/<path>`, with or without a final `.git`.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.strip_suffix(".git").unwrap_or(text);
        let bad = |reason| Error::BadRepoName {
            name: excerpt(text),
            reason,
        };
        if name.len() > MAX_REPO_NAME_LEN {
            return Err(bad("it is longer than 512 bytes"));
        }
        let (host, path) = name
            .split_once('/')
            .ok_or_else(|| bad("it has no path after the host"))?;
        check_host(host).map_err(bad)?;
        if path.split('/').count() > MAX_REPO_NAME_SEGMENTS {
            return Err(bad("its path has more than 16 segments"));
        }
        for segment in path.split('/') {
            check_segment(segment).map_err(bad)?;
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the whole name, `<host>/<path>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part before the first slash: the host, with its port if it has one.
    pub fn host(&self) -> &str {
        self.0.split_once('/').map_or("", |(host, _)| host)
    }

    /// Returns the part after the first slash.
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }

    /// Returns the name with its path in lower case. If an upstream ignores case, this is the one
    /// spelling of its repository.
    pub fn to_lower_case(&self) -> Self {
        Self(format!(
            "{}/{}",
            self.host(),
            self.path().to_ascii_lowercase()
        ))
    }

    /// Returns whether the two names differ at most in the case of letters in their paths.
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        self.host() == other.host() && self.path().eq_ignore_ascii_case(other.path())
    }

    /// Refuses a text that can't be the host of a repository's name. The error has the reason.
    pub fn check_host(host: &str) -> Result<()> {
        check_host(host).map_err(|reason| Error::BadRepoName {
            name: excerpt(host),
            reason,
        })
    }
}

fn check_host(host: &str) -> std::result::Result<(), &'static str> {
    let (name, port) = host
        .split_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    // Each port has one spelling. With ":080" beside ":80", one repository would have two names.
    let is_port = |port: &str| {
        port.parse::<u16>()
            .is_ok_and(|number| number > 0 && number.to_string() == port)
    };
    if !port.is_none_or(is_port) {
        return Err("the port of its host is not a number from 1 to 65535");
    }
    if host.len() > MAX_HOST_LEN {
        return Err("its host is longer than 253 bytes");
    }
    let is_label =
        |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    if !name.split('.').all(is_label) {
        return Err("a part of its host between dots is empty, or starts or ends with a dash");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    {
        return Err("its host has characters other than letters, digits, dots and dashes");
    }
    Ok(())
}

fn check_segment(segment: &str) -> std::result::Result<(), &'static str> {
    if segment.is_empty() {
        return Err("a segment of its path is empty");
    }
    if segment == "." || segment == ".." {
        return Err("a segment of its path is '.' or '..'");
    }
    if segment.starts_with('-') {
        return Err("a segment of its path starts with a dash");
    }
    // With ".git" or another short suffix, the segment has to fit in a file name of 255 bytes.
    if segment.len() > MAX_REPO_NAME_SEGMENT_LEN {
        return Err("a segment of its path is longer than 240 bytes");
    }
    if [".git", ".objects"]
        .iter()
        .any(|name| segment.eq_ignore_ascii_case(name))
    {
        return Err("a segment of its path is '.git' or '.objects'");
    }
    // A final ".git" of the whole name has been removed already. With any other, such as in
    // `h/a.git/refs/x`, the path would point into the mirror of `h/a`, which is stored as `a.git`.
    if segment.to_ascii_lowercase().ends_with(".git") {
        return Err("a segment of its path ends in '.git'");
    }
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'~');
    if !segment.bytes().all(is_allowed) {
        return Err("its path has characters other than letters, digits and . _ - + ~");
    }
    Ok(())
}

/// Cuts `text` to 80 characters, for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for RepoName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RepoName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for RepoName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<RepoName> for String {
    fn from(name: RepoName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_names_with_and_without_the_git_suffix() {
        let name = RepoName::parse("github.com/org/repo.git").unwrap();

        assert_eq!(name, RepoName::parse("github.com/org/repo").unwrap());
        assert_eq!((name.host(), name.path()), ("github.com", "org/repo"));
    }

    #[test]
    fn accepts_ports_dots_and_deep_paths() {
        for good in [
            "localhost:3000/a",
            "h/.github",
            "gitlab.com/a/b/c/d_e-f.g",
            "h/c++",
            "h/~u/x",
            "a--b.c:65535/snapshots",
            &format!("{}/x", "h".repeat(253)),
            &format!("h/{}", "x".repeat(240)),
        ] {
            RepoName::parse(good).unwrap();
        }
    }

    #[test]
    fn names_that_differ_in_case_have_one_spelling_in_lower_case() {
        let parse = |name: &str| RepoName::parse(name).unwrap();
        let (typed, lower) = (
            parse("Git.org:80/Org/Rep-O.x"),
            parse("Git.org:80/org/rep-o.x"),
        );

        assert_eq!(typed.to_lower_case(), lower);
        assert!(typed.eq_ignore_case(&lower));
        assert!(!typed.eq_ignore_case(&parse("git.org:80/org/rep-o.x")));
        assert!(!typed.eq_ignore_case(&parse("Git.org:80/org/rep-o")));
    }

    #[test]
    fn refuses_names_that_leave_the_directory_or_look_like_options() {
        for bad in [
            "",
            "host",
            "host/",
            "/path",
            "h//x",
            "h/../x",
            "h/./x",
            "h/-x",
            "-h/x",
            "h/x/",
            "h/a b",
            "h/%2e",
            "h/a\\b",
            "h/.git",
            "h/.git/x",
            "h/.objects/x",
            "h/a@b",
            "h:x/y",
            ".h/x",
            "h/a\n",
            "h/é",
            "h:123456/x",
            "h:/x",
            "h/.GIT",
            "h/a.git.git",
            "h/a.git/refs/x",
            "h/a.GIT",
            "h-/x",
            "a.-b/x",
            "a-.b/x",
            "a..b/x",
            "h./x",
            "h:0/x",
            "h:080/x",
            "h:+80/x",
            "h:65536/x",
            &format!("{}/x", "h".repeat(254)),
            &format!("h/{}", "x".repeat(241)),
        ] {
            assert!(RepoName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_below_its_directory(text in ".{0,60}") {
            if let Ok(name) = RepoName::parse(&text) {
                prop_assert!(!name.as_str().split('/').any(|part| matches!(part, "" | "." | "..")));
                let lower = name.to_lower_case();
                prop_assert_eq!(RepoName::parse(lower.as_str()).unwrap(), lower);
                prop_assert_eq!(RepoName::parse(name.as_str()).unwrap(), name);
            }
        }
    }
}
