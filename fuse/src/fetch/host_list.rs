//! The hosts in a daemon's list of repositories.

use cachewfs_format::RepoName;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// At most so many hosts are taken from a list.
const MAX_HOSTS: usize = 1000;

/// The part of the list of repositories that a mount wants.
#[derive(Debug, Deserialize)]
pub(super) struct HostList {
    /// Names that hosts can have.
    #[serde(deserialize_with = "known_hosts")]
    pub(super) hosts: Vec<String>,
}

/// Takes the names that hosts can have, and leaves out all others: they would be names of directories.
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
