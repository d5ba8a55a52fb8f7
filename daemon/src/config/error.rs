//! Why a configuration can't be used.

use std::path::PathBuf;

/// Why a configuration can't be used. No text of it has credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{path}, line {line}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What.
        source: Box<Self>,
    },
    /// The file is not TOML, or a value is of another type than its key's.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
    },
    /// There is no such key.
    #[error("there is no key {key}{}", advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// What was meant, most likely.
        advice: Option<String>,
    },
    /// A value can't be used.
    #[error("{key} = {value:?} can't be used: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, without credentials.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A variable of the environment can't be used.
    #[error("the variable {variable} can't be used: {reason}")]
    Environment {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
