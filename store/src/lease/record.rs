//! The lease object in the store, as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Holder;
use super::error::LeaseError;

/// The longest time to live of a lease. After a crash, no daemon publishes for as long.
pub(crate) const MAX_TTL: Duration = Duration::from_hours(1);

/// At most this many bytes of a lease object: ten times as many as are written.
const MAX_LEN: usize = 4096;
const VERSION: u32 = 1;

/// A lease as it is stored.
///
/// No two records that were ever stored are equal: they differ in the token, in the number of
/// renewals, or in whether they are released. So each has a version of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    version: u32,
    pub(super) holder: Holder,
    /// Increased each time the lease is taken.
    pub(super) token: u64,
    ttl_ms: u64,
    renewals: u64,
    pub(super) is_released: bool,
}

/// The field that all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl LeaseRecord {
    /// Returns the record with which `holder` takes the lease.
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

    /// Returns the record with which the holder renews the lease.
    pub(super) fn renewed(&self) -> Self {
        Self {
            renewals: self.renewals.saturating_add(1),
            ..self.clone()
        }
    }

    /// Returns the record with which the holder releases the lease.
    pub(super) fn released(&self) -> Self {
        Self {
            is_released: true,
            ..self.clone()
        }
    }

    /// Returns whether `other` is a later record of the same claim, and not released.
    pub(super) fn is_of_same_claim(&self, other: &Self) -> bool {
        self.holder.id == other.holder.id && self.token == other.token && !other.is_released
    }

    pub(super) fn parse(json: &[u8]) -> Result<Self, LeaseError> {
        if json.len() > MAX_LEN {
            return Err(LeaseError::Invalid {
                what: "it has too many bytes",
            });
        }
        let Versioned { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(LeaseError::UnknownVersion { version });
        }
        let record: Self = serde_json::from_slice(json)?;
        if record.ttl_ms == 0 || record.ttl() > MAX_TTL {
            return Err(LeaseError::Invalid {
                what: "its time to live is zero or too long",
            });
        }
        if !record.holder.is_plain() {
            return Err(LeaseError::Invalid {
                what: "its holder's id or host name has characters that are not allowed",
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

    fn record() -> LeaseRecord {
        LeaseRecord::new(Holder::named("1a2b", "host"), 7, Duration::from_secs(30))
    }

    #[test]
    fn a_written_record_is_read_back() {
        for record in [record(), record().renewed(), record().released()] {
            assert_eq!(
                LeaseRecord::parse(&record.to_json().unwrap()).unwrap(),
                record
            );
        }
        assert_ne!(record().renewed(), record());
        assert!(record().is_of_same_claim(&record().renewed()));
        assert!(!record().is_of_same_claim(&record().released()));
    }

    #[test]
    fn invalid_records_are_refused() {
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
            assert!(LeaseRecord::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let later = LeaseRecord::parse(b"{\"version\":2,\"what\":\"nobody knows yet\"}");
        assert!(matches!(
            later,
            Err(LeaseError::UnknownVersion { version: 2 })
        ));
    }
}
