//! Reasons why a configuration can't be used.

use std::path::PathBuf;

/// The reason why a configuration can't be used. No message contains credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        source: std::io::Error,
    },
    /// A line of the file is wrong.
    #[error("{path}, line {line}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// The number of the line, counted from 1.
        line: usize,
        /// The problem in that line.
        source: Box<Self>,
    },
    /// The file isn't TOML, or a value has the wrong type for its key.
    #[error("{message}")]
    Syntax {
        /// The message of the TOML parser, without the line, which may contain credentials.
        message: String,
    },
    /// The file has a key that doesn't exist.
    #[error(
        "there is no key {key}{}",
        advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default()
    )]
    UnknownKey {
        /// The key.
        key: String,
        /// A sentence that says which key or section was probably meant.
        advice: Option<String>,
    },
    /// A value has the wrong type or form.
    #[error(
        "{key} can't be used: {reason}{}",
        example.as_ref().map(|example| format!("; for example: {example}")).unwrap_or_default()
    )]
    WrongValue {
        /// The key, with its section. The value may be a secret and is not shown.
        key: String,
        /// The rule that the value breaks.
        reason: String,
        /// A line that sets the key.
        example: Option<String>,
    },
    /// An entry of `[upstreams]` can't be used.
    #[error("the upstream {host:?} can't be used: {reason}")]
    Upstream {
        /// The key of the entry. The URL may have credentials and is not shown.
        host: String,
        /// The rule that the entry breaks.
        reason: &'static str,
    },
    /// A value can't be used.
    #[error("{key} = {value:?} can't be used: {reason}")]
    Value {
        /// The key, with its section: `git_http.max_requests`.
        key: &'static str,
        /// The value, without credentials.
        value: String,
        /// The rule that the value breaks.
        reason: &'static str,
    },
    /// A key or section needs a part of the daemon that this program doesn't contain.
    #[error("{key} can't be used in this program: only cachewfsd supports it")]
    Unsupported {
        /// The key, or the section in brackets.
        key: &'static str,
    },
    /// An environment variable can't be used.
    #[error("the environment variable {variable} can't be used: {reason}")]
    Environment {
        /// The name of the variable. Its value may be a secret and is not shown.
        variable: String,
        /// The rule that the variable breaks.
        reason: &'static str,
    },
}
