//! Parses the hosts in a daemon's list of repositories.

use cachewfs_format::RepoName;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// At most this many hosts of a list.
const MAX_HOSTS: usize = 1000;

/// The part of a list of repositories that a mount needs. The repositories themselves are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct HostList {
    /// Valid names of hosts.
    #[serde(deserialize_with = "known_hosts")]
    pub(super) hosts: Vec<String>,
}

/// Reads the valid names of hosts, and skips all others.
///
/// Each host becomes a directory of the mount. A name such as `..` or `a/b` would break the
/// listing.
fn known_hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Hosts;

    impl<'de> Visitor<'de> for Hosts {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of hosts")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Vec<String>, A::Error> {
            let mut hosts = Vec::new();
            while let Some(name) = names.next_element::<String>()? {
                if hosts.len() < MAX_HOSTS && RepoName::check_host(&name).is_ok() {
                    hosts.push(name);
                }
            }
            Ok(hosts)
        }
    }

    deserializer.deserialize_seq(Hosts)
}
