//! The token that requests to daemons carry, from a file that may change.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use tracing::warn;

/// At least this long passes before the file is read again.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// At most this many bytes are read of the file.
const MAX_TOKEN_LEN: u64 = 4096;

/// Why a token can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("the file can't be read")]
    Read(#[from] std::io::Error),
    /// The file contains no valid token.
    #[error("the file has no token: it must have one line of visible ASCII characters")]
    Empty,
}

/// A token without a file, for a daemon in the same process. `Debug` doesn't print it.
#[derive(Clone, Debug)]
pub struct SecretToken(HeaderValue);

impl SecretToken {
    /// Returns the token, or `None` if it is empty or has other than visible ASCII characters.
    pub fn new(token: &str) -> Option<Self> {
        to_header(token).ok().map(Self)
    }
}

/// A token as the value of a header. It is marked as sensitive, so `Debug` doesn't print it.
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
    /// Reads the token in the file at `path`, and remembers the path.
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        let read = Mutex::new((read(path)?, Instant::now()));
        let path = path.to_owned();
        Ok(Self::File { path, read })
    }

    /// Returns the value of `Authorization`.
    ///
    /// If the file can't be read any more, this is the token that was read last.
    pub(crate) fn header(&self) -> HeaderValue {
        let (path, read_last) = match self {
            Self::File { path, read } => (path, read),
            Self::Secret(value) => return value.clone(),
        };
        let mut last = read_last.lock();
        if last.1.elapsed() >= REREAD_INTERVAL {
            // Also if reading fails: then one warning for each interval, not one for each request.
            last.1 = Instant::now();
            match read(path) {
                Ok(value) => last.0 = value,
                Err(error) => {
                    let path = path.display();
                    warn!(%path, %error, "Can't read the token file {path}: the old token stays");
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
    // The HTTP client logs headers at `trace`.
    value.set_sensitive(true);
    Ok(value)
}
