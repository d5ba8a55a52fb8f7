//! [`Holder`]: the identity of a daemon as a holder of leases.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use cachewfs_base::{DataDir, random_number};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The length of an id, in hexadecimal digits.
const ID_LEN: usize = 32;
/// At most this many bytes of a host name, as in DNS.
const MAX_HOST_LEN: usize = 253;

/// A daemon as the holder of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Unique among all daemons.
    pub(super) id: Arc<str>,
    /// The host name of its machine, for people.
    host: Arc<str>,
}

impl Holder {
    /// Returns the identity of the daemon with this data directory. It survives a restart, so that
    /// a daemon needn't wait for a lease that it held when it was killed.
    pub fn of_data_dir(data_dir: &DataDir) -> Self {
        let path = data_dir.replica_id();
        let id = read_or_create(&path).unwrap_or_else(|error| {
            let path = path.display();
            warn!(%error, %path, "Can't store the id of this replica: it will change at a restart");
            new_id()
        });
        let system = rustix::system::uname();
        let host = system.nodename().to_string_lossy();
        Self::named(&id, if is_plain(&host) { &host } else { "unnamed" })
    }

    pub(super) fn named(id: &str, host: &str) -> Self {
        let (id, host) = (Arc::from(id), Arc::from(host));
        Self { id, host }
    }

    /// Returns whether it is safe to show to people.
    pub(super) fn is_plain(&self) -> bool {
        is_plain(&self.id) && is_plain(&self.host)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.get(..8).unwrap_or(&self.id);
        write!(formatter, "{} ({id})", self.host)
    }
}

fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.len() <= MAX_HOST_LEN && name.bytes().all(is_plain)
}

fn new_id() -> String {
    // Unique is enough, the id needn't be secret.
    format!("{:016x}{:016x}", random_number(), random_number())
}

fn read_or_create(path: &Path) -> std::io::Result<String> {
    let present = fs::read_to_string(path).unwrap_or_default();
    let present = present.trim();
    if present.len() == ID_LEN && present.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(present.to_owned());
    }
    let id = new_id();
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    writeln!(file, "{id}")?;
    file.persist(path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_holder_and_no_two_have_the_same() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |directory: &Path| Holder::of_data_dir(&directory.to_owned().into());

        let holder = of(one.path());

        assert_eq!(of(one.path()), holder);
        assert_ne!(of(other.path()).id, holder.id);
        assert!(holder.is_plain());
    }
}
