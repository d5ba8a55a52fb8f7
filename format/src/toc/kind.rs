//! The kinds of archive.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of archive of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    /// A bare repository, `mirror.tar.zst`.
    Mirror,
    /// A working clone, `snapshot.tar.zst`.
    Checkout,
    /// The Git LFS objects that the work tree needs, `lfs-snapshot.tar.zst`. It has a manifest of
    /// its own.
    Lfs,
}

impl ArchiveKind {
    /// All kinds of archive.
    pub const ALL: &[Self] = &[Self::Mirror, Self::Checkout, Self::Lfs];

    pub(super) const fn tag(self) -> u8 {
        match self {
            Self::Mirror => 1,
            Self::Checkout => 2,
            Self::Lfs => 3,
        }
    }

    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.tag() == tag)
    }
}

impl fmt::Display for ArchiveKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mirror => "mirror",
            Self::Checkout => "checkout",
            Self::Lfs => "lfs",
        })
    }
}
