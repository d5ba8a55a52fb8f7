//! Reads and writes the JSON objects of a store: manifest, pointer and deletions.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::check_at_most;
use crate::{Error, Result};

/// At most this many characters of serde's reason are kept in an error.
const MAX_REASON_CHARS: usize = 200;

/// The rules for one kind of JSON object.
pub(crate) struct JsonFormat {
    /// The name of the kind in errors.
    pub(crate) section: &'static str,
    /// The only version that is read and written.
    pub(crate) version: u32,
    /// The longest JSON that is read or written, in bytes.
    pub(crate) max_len: u32,
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl JsonFormat {
    /// Parses `json`. If its version is another one, the error is `UnknownVersion`.
    pub(crate) fn parse<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T> {
        check_at_most(self.section, json.len(), self.max_len)?;
        // The version is read first. Another version may have other fields, and an error about a
        // missing field would hide the reason.
        let Versioned { version } =
            serde_json::from_slice(json).map_err(|error| self.bad(&error))?;
        self.check_version(version)?;
        serde_json::from_slice(json).map_err(|error| self.bad(&error))
    }

    /// Encodes `value`, whose version is `version`. Refuses a value that `parse` would refuse for
    /// its version or its length.
    pub(crate) fn write(&self, value: &impl Serialize, version: u32) -> Result<Vec<u8>> {
        self.check_version(version)?;
        let json = serde_json::to_vec(value).map_err(|error| self.bad(&error))?;
        check_at_most(self.section, json.len(), self.max_len)?;
        Ok(json)
    }

    fn check_version(&self, version: u32) -> Result<()> {
        if version == self.version {
            return Ok(());
        }
        Err(Error::UnknownVersion {
            section: self.section,
            version,
        })
    }

    fn bad(&self, error: &serde_json::Error) -> Error {
        Error::BadJson {
            section: self.section,
            reason: error.to_string().chars().take(MAX_REASON_CHARS).collect(),
        }
    }
}
