//! The object that a lease is, as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Holder;
use super::error::LeaseError;

/// A lease that runs longer is refused: after a crash nobody would publish for as long.
pub(crate) const MAX_TTL: Duration = Duration::from_hours(1);

/// Bytes of the object: ten times what is written.
const MAX_LEN: usize = 4096;
const VERSION: u32 = 1;

/// A lease as it is stored. No two that were ever stored are alike: each has another token, or another
/// number of renewals, or one of them is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) holder: Holder,
    /// One more each time that the lease is taken.
    pub(super) token: u64,
    ttl_ms: u64,
    renewals: u64,
    pub(super) is_released: bool,
}

/// The one field that all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Record {
    /// That `holder` takes the lease.
    pub(super) fn new(holder: Holder, token: u64, ttl: Duration) -> Self {
        Self {
            version: VERSION,
            holder,
            token,
            ttl_ms: u64::try_from(ttl.min(MAX_TTL).as_millis()).unwrap_or(u64::MAX),
            renewals: 0,
            is_released: false,
        }
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// That the holder still holds it.
    pub(super) fn renewed(&self) -> Self {
        Self {
            renewals: self.renewals.saturating_add(1),
            ..self.clone()
        }
    }

    /// That the holder is done.
    pub(super) fn released(&self) -> Self {
        Self {
            is_released: true,
            ..self.clone()
        }
    }

    /// Whether it is from one who took the lease as this says, and holds it.
    pub(super) fn is_of_same_claim(&self, other: &Self) -> bool {
        self.holder.id == other.holder.id && self.token == other.token && !other.is_released
    }

    pub(super) fn parse(json: &[u8]) -> Result<Self, LeaseError> {
        if json.len() > MAX_LEN {
            return Err(LeaseError::Strange {
                what: "it is too long",
            });
        }
        let Versioned { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(LeaseError::UnknownVersion { version });
        }
        let record: Self = serde_json::from_slice(json)?;
        if record.ttl_ms == 0 || record.ttl() > MAX_TTL {
            return Err(LeaseError::Strange {
                what: "it runs for no time, or too long",
            });
        }
        if !record.holder.is_plain() {
            return Err(LeaseError::Strange {
                what: "its holder has no name",
            });
        }
        Ok(record)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, LeaseError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(Holder::named("1a2b", "host"), 7, Duration::from_secs(30))
    }

    #[test]
    fn what_is_written_is_read_back() {
        for record in [record(), record().renewed(), record().released()] {
            assert_eq!(Record::parse(&record.to_json().unwrap()).unwrap(), record);
        }
        assert_ne!(record().renewed(), record());
        assert!(record().is_of_same_claim(&record().renewed()));
        assert!(!record().is_of_same_claim(&record().released()));
    }

    #[test]
    fn what_no_daemon_wrote_is_refused() {
        let good = String::from_utf8(record().to_json().unwrap()).unwrap();
        let long = format!("{good}{}", " ".repeat(MAX_LEN));
        for bad in [
            String::new(),
            "null".to_owned(),
            "{\"version\":1}".to_owned(),
            good.replace("30000", "0"),
            good.replace("30000", "3600001"),
            good.replace("\"host\"", "\"a\\nb\""),
            long,
        ] {
            assert!(Record::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let later = Record::parse(b"{\"version\":2,\"what\":\"nobody knows yet\"}");
        assert!(matches!(
            later,
            Err(LeaseError::UnknownVersion { version: 2 })
        ));
    }
}
