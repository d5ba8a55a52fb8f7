//! The roles of segments: the kind of content that each has in an archive.

use super::{PackKind, SnapshotPart};

macro_rules! roles {
    ($($name:ident $(($kind:ident))? = $tag:literal,)*) => {
        impl Role {
            /// All roles.
            pub const ALL: &[Self] = &[$(Self::$name $((PackKind::$kind))?,)*];

            pub(super) const fn tag(self) -> u8 {
                match self { $(Self::$name $((PackKind::$kind))? => $tag,)* }
            }

            pub(super) const fn from_tag(tag: u8) -> Option<Self> {
                match tag { $($tag => Some(Self::$name $((PackKind::$kind))?),)* _ => None }
            }
        }
    };
}

/// The kind of content of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Tar members: the small files and the directories of the git directory.
    Refs,
    /// Tar member: the header of a file whose data is the next segment.
    Header,
    /// File data: one link of the commit-graph chain.
    CommitGraph,
    /// File data: a `.idx` file.
    PackIndex,
    /// File data: a `.rev` file.
    PackReverseIndex,
    /// File data: a pack.
    Pack(PackKind),
    /// File data: the header of the git index.
    IndexHeader,
    /// File data: the index entries of one run of the work tree.
    IndexPart,
    /// File data: the extensions and the checksum of the git index.
    IndexTrailer,
    /// Tar members: a run of the work tree.
    WorkTree,
    /// File data: a large file of the work tree. Its header is at the end of the run before it.
    LargeFile,
    /// The two zero blocks that end a tar stream.
    End,
    /// File data: a part of `packed-refs`, if that file is long.
    PackedRefs,
    /// File data: a Git LFS object.
    LfsObject,
}

// The tags of roles in an archive. A tag that was released never changes.
roles! {
    Refs = 1,
    Header = 2,
    CommitGraph = 3,
    PackIndex = 4,
    PackReverseIndex = 5,
    Pack(Tip) = 6,
    Pack(Increment) = 7,
    Pack(Commits) = 8,
    Pack(Trees) = 9,
    Pack(History) = 10,
    IndexHeader = 11,
    IndexPart = 12,
    IndexTrailer = 13,
    WorkTree = 14,
    LargeFile = 15,
    End = 16,
    Pack(Recent) = 17,
    PackedRefs = 18,
    LfsObject = 19,
}

impl Role {
    /// Returns whether a segment of this role has only the data of one file. Other segments have
    /// tar members.
    pub const fn is_file_data(self) -> bool {
        match self {
            Self::Refs | Self::Header | Self::WorkTree | Self::End => false,
            Self::CommitGraph
            | Self::PackIndex
            | Self::PackReverseIndex
            | Self::Pack(_)
            | Self::IndexHeader
            | Self::IndexPart
            | Self::IndexTrailer
            | Self::PackedRefs
            | Self::LfsObject
            | Self::LargeFile => true,
        }
    }

    /// Returns how the path of a file begins and ends that git keeps objects in, or `None` if the
    /// segment is no such file. Between the two is a hash in hexadecimal.
    pub const fn git_object_file(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::CommitGraph => Some(("objects/info/commit-graphs/graph-", ".graph")),
            Self::PackIndex => Some(("objects/pack/pack-", ".idx")),
            Self::PackReverseIndex => Some(("objects/pack/pack-", ".rev")),
            Self::Pack(_) => Some(("objects/pack/pack-", ".pack")),
            Self::Refs
            | Self::PackedRefs
            | Self::LfsObject
            | Self::Header
            | Self::IndexHeader
            | Self::IndexPart
            | Self::IndexTrailer
            | Self::WorkTree
            | Self::LargeFile
            | Self::End => None,
        }
    }

    /// Returns whether a reader needs nearly all of such a segment sooner or later: of the indexes,
    /// the commit-graph and some packs.
    pub const fn is_read_whole(self) -> bool {
        match self {
            Self::Pack(kind) => kind.is_read_whole(),
            other => other.git_object_file().is_some(),
        }
    }

    /// Returns whether a mount fetches new segments of this role before it shows the refs of a
    /// newer snapshot: indexes, commit-graphs and some packs.
    pub const fn is_fetched_before_refs(self) -> bool {
        match self {
            Self::Pack(kind) => kind.is_fetched_before_refs(),
            other => other.git_object_file().is_some(),
        }
    }

    /// Returns the smallest part of a snapshot that has segments of this role. Returns `None` if a
    /// mount never reads them.
    pub const fn part(self) -> Option<SnapshotPart> {
        match self {
            Self::Pack(kind) => Some(kind.part()),
            Self::Refs
            | Self::PackedRefs
            | Self::CommitGraph
            | Self::PackIndex
            | Self::PackReverseIndex
            | Self::IndexHeader
            | Self::IndexPart
            | Self::IndexTrailer => Some(SnapshotPart::Hot),
            Self::WorkTree | Self::LargeFile => Some(SnapshotPart::All),
            Self::Header | Self::LfsObject | Self::End => None,
        }
    }
}
