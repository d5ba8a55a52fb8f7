//! Who holds leases: a daemon, by what only it has.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

/// Below the data directory, which no two daemons use at once.
const FILE: &str = "replica-id";
/// Hexadecimal digits of an id.
const ID_LEN: usize = 32;
/// Bytes of a host's name, as of one that DNS has.
const MAX_HOST_LEN: usize = 253;

/// A daemon that holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// No other daemon's.
    pub(super) id: Arc<str>,
    /// Where it runs, for people.
    host: Arc<str>,
}

impl Holder {
    /// The daemon whose data directory this is: the same after a restart, so that it needn't wait for
    /// what it held itself when it was killed.
    pub(crate) fn of_data_dir(data_dir: &Path) -> Self {
        let id = read_or_create(&data_dir.join(FILE)).unwrap_or_else(|error| {
            let path = data_dir.join(FILE);
            warn!(%error, path = %path.display(), "Can't note which replica this is");
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

    /// Whether it can be shown to people.
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
    // Each RandomState has a key of its own: nobody has to be unable to guess it.
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
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

        let holder = Holder::of_data_dir(one.path());

        assert_eq!(Holder::of_data_dir(one.path()), holder);
        assert_ne!(Holder::of_data_dir(other.path()).id, holder.id);
        assert!(holder.is_plain());
    }
}
