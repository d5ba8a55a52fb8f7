//! The token that daemons are shown, from a file that may change.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use tracing::warn;

/// So often, at most, the file is read again.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// A longer token is none, in bytes.
const MAX_TOKEN_LEN: u64 = 4096;

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("the file can't be read")]
    Read(#[from] std::io::Error),
    /// The file has no token.
    #[error("the file has no token: one line of visible characters")]
    Empty,
}

/// A token that is in no file, for a daemon in the same process. It is not printed.
#[derive(Clone, Debug)]
pub struct SecretToken(HeaderValue);

impl SecretToken {
    /// Takes a token; `None` if it has other than visible characters.
    pub fn new(token: &str) -> Option<Self> {
        to_header(token).ok().map(Self)
    }
}

/// A token, as requests show it. It is marked as sensitive, so that it isn't printed.
#[derive(Debug)]
pub(crate) enum DaemonToken {
    File {
        path: PathBuf,
        read: Mutex<(HeaderValue, Instant)>,
    },
    Secret(HeaderValue),
}

impl From<&SecretToken> for DaemonToken {
    fn from(token: &SecretToken) -> Self {
        Self::Secret(token.0.clone())
    }
}

impl DaemonToken {
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        let read = Mutex::new((read(path)?, Instant::now()));
        let path = path.to_owned();
        Ok(Self::File { path, read })
    }

    /// The value of `Authorization`; what was read before, if the file can't be read any more.
    pub(crate) fn header(&self) -> HeaderValue {
        let (path, read_last) = match self {
            Self::File { path, read } => (path, read),
            Self::Secret(value) => return value.clone(),
        };
        let mut last = read_last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.elapsed() >= REREAD_INTERVAL {
            last.1 = Instant::now();
            match read(path) {
                Ok(value) => last.0 = value,
                Err(error) => {
                    let path = path.display();
                    warn!(%path, %error, "The token can't be read again; the old one stays");
                }
            }
        }
        last.0.clone()
    }
}

fn read(path: &Path) -> Result<HeaderValue, TokenError> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_TOKEN_LEN)
        .read_to_string(&mut text)?;
    to_header(text.trim())
}

fn to_header(token: &str) -> Result<HeaderValue, TokenError> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Empty);
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| TokenError::Empty)?;
    value.set_sensitive(true);
    Ok(value)
}
