//! Reading and writing the objects of a store that are JSON: manifest, pointer, deletions.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::check_at_most;
use crate::{Error, Result};

/// How many bytes of serde's reason an error keeps.
const MAX_REASON_CHARS: usize = 200;

/// A kind of object.
pub(crate) struct JsonFormat {
    /// Its name in errors.
    pub(crate) section: &'static str,
    /// The only version that is read and written.
    pub(crate) version: u32,
    /// Bytes at most.
    pub(crate) max_len: u32,
}

/// The one field that all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl JsonFormat {
    /// Parses `json`. That it has another version is said rather than what follows from that.
    pub(crate) fn parse<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T> {
        check_at_most(self.section, json.len(), self.max_len)?;
        let Versioned { version } =
            serde_json::from_slice(json).map_err(|error| self.bad(&error))?;
        self.check_version(version)?;
        serde_json::from_slice(json).map_err(|error| self.bad(&error))
    }

    /// Writes `value`, which has `version`, if a reader takes it.
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
