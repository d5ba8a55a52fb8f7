//! The id of a git object.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The id of a git commit, tree, blob or tag: SHA-1 (20 bytes) or SHA-256 (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId {
    bytes: [u8; 32],
    algorithm: Algorithm,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha1,
    Sha256,
}

impl ObjectId {
    /// Returns git's null id, which no object has, with the length of this id. It stands for the
    /// commit of a HEAD whose branch doesn't exist.
    pub fn to_null(self) -> Self {
        Self {
            bytes: [0; 32],
            ..self
        }
    }

    /// Returns whether this is git's null id.
    pub fn is_null(&self) -> bool {
        self.as_bytes().iter().all(|&byte| byte == 0)
    }

    /// Parses 40 or 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::BadObjectId {
            text: text.chars().take(80).collect(),
        };
        let mut bytes = [0; 32];
        let algorithm = match text.len() {
            40 => Algorithm::Sha1,
            64 => Algorithm::Sha256,
            _ => return Err(bad()),
        };
        crate::digest::decode_hex(text, &mut bytes).ok_or_else(bad)?;
        Ok(Self { bytes, algorithm })
    }

    /// Returns whether `text` is an id as [`Self::parse`] takes it.
    pub fn is_hex(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok_and(|text| Self::parse(text).is_ok())
    }

    /// Makes an id from its 20 or 32 raw bytes.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        let algorithm = match raw.len() {
            20 => Algorithm::Sha1,
            32 => Algorithm::Sha256,
            _ => {
                return Err(Error::BadObjectId {
                    text: format!("{} raw bytes", raw.len()),
                });
            }
        };
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(raw) {
            *to = *from;
        }
        Ok(Self { bytes, algorithm })
    }

    /// Returns the 20 or 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let len = match self.algorithm {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        };
        self.bytes.get(..len).unwrap_or_default()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ObjectId({self})")
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ObjectId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_both_algorithms() {
        for text in [
            "0123456789abcdef0123456789abcdef01234567".to_owned(),
            "ab".repeat(32),
        ] {
            let id = ObjectId::parse(&text).unwrap();

            assert_eq!(id.to_string(), text);
            assert_eq!(ObjectId::from_bytes(id.as_bytes()).unwrap(), id);
        }
    }

    #[test]
    fn refuses_other_lengths_and_letters() {
        for bad in ["", "abc", &"A".repeat(40), &"g".repeat(40), &"a".repeat(41)] {
            assert!(ObjectId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
