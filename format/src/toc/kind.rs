//! The two kinds of archive.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The two kinds of archive of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    /// A bare repository, `mirror.tar.zst`.
    Mirror,
    /// A working clone, `snapshot.tar.zst`.
    Checkout,
}

impl fmt::Display for ArchiveKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mirror => "mirror",
            Self::Checkout => "checkout",
        })
    }
}
