//! The id of a snapshot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, ObjectId, Result};

/// The id of a snapshot.
///
/// The first state that is published at a commit of HEAD has the id `<commit>`. A later state at
/// that commit, with other refs, has the id `<commit>-<first 16 hexadecimal digits of the refs'
/// digest>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId {
    commit: ObjectId,
    refs: Option<[u8; 8]>,
}

impl SnapshotId {
    /// Returns the id of the first state that is published at `commit`.
    pub const fn first(commit: ObjectId) -> Self {
        Self { commit, refs: None }
    }

    /// Returns the id of a later state at `commit`, whose refs have the digest `refs`.
    pub fn later(commit: ObjectId, refs: &Digest) -> Self {
        Self {
            commit,
            refs: refs.as_bytes().first_chunk().copied(),
        }
    }

    /// Parses `<commit>` or `<commit>-<16 hexadecimal digits>`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::BadSnapshotId {
            text: text.chars().take(120).collect(),
        };
        let Some((commit, refs)) = text.split_once('-') else {
            return ObjectId::parse(text).map(Self::first).map_err(|_| bad());
        };
        let mut bytes = [0; 8];
        if refs.len() != 16 {
            return Err(bad());
        }
        crate::digest::decode_hex(refs, &mut bytes).ok_or_else(bad)?;
        Ok(Self {
            commit: ObjectId::parse(commit).map_err(|_| bad())?,
            refs: Some(bytes),
        })
    }

    /// Returns the commit of HEAD.
    pub const fn commit(&self) -> ObjectId {
        self.commit
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commit.fmt(formatter)?;
        if let Some(refs) = &self.refs {
            formatter.write_str("-")?;
            refs.iter()
                .try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_both_spellings() {
        let commit = ObjectId::parse(&"1a".repeat(20)).unwrap();
        let later = SnapshotId::later(commit, &Digest::of(b"refs"));

        for id in [SnapshotId::first(commit), later] {
            assert_eq!(SnapshotId::parse(&id.to_string()).unwrap(), id);
            assert_eq!(id.commit(), commit);
        }
    }

    #[test]
    fn refuses_other_texts() {
        let commit = "1a".repeat(20);
        for bad in [
            "",
            "x",
            "HEAD",
            &format!("{commit}-"),
            &format!("{commit}-12"),
            &format!("-{commit}"),
        ] {
            assert!(SnapshotId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
