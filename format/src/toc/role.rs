//! The roles of segments: the kind of content that each has in an archive.

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)*) => {
        /// The kind of content of a segment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Role { $($(#[$doc])* $name,)* }

        impl Role {
            /// All roles.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub(super) const fn tag(self) -> u8 {
                match self { $(Self::$name => $tag,)* }
            }

            pub(super) const fn from_tag(tag: u8) -> Option<Self> {
                match tag { $($tag => Some(Self::$name),)* _ => None }
            }
        }
    };
}

roles! {
    /// Tar members: the small files and the directories of the git directory.
    Refs = 1,
    /// Tar member: the header of a file whose data is the next segment.
    Header = 2,
    /// File data: one link of the commit-graph chain.
    CommitGraph = 3,
    /// File data: a `.idx` file.
    PackIndex = 4,
    /// File data: a `.rev` file.
    PackReverseIndex = 5,
    /// File data: the pack of HEAD's git trees and git blobs.
    PackTip = 6,
    /// File data: a pack of the objects that were new at a later publish.
    PackIncrement = 7,
    /// File data: the pack of commits and tags.
    PackCommits = 8,
    /// File data: the pack of all other git trees.
    PackTrees = 9,
    /// File data: the pack of all other git blobs.
    PackHistory = 10,
    /// File data: the header of the git index.
    IndexHeader = 11,
    /// File data: the index entries of one run of the work tree.
    IndexPart = 12,
    /// File data: the extensions and the checksum of the git index.
    IndexTrailer = 13,
    /// Tar members: a run of the work tree.
    WorkTree = 14,
    /// File data: a large file of the work tree. Its header is at the end of the run before it.
    LargeFile = 15,
    /// The two zero blocks that end a tar stream.
    End = 16,
    /// File data: the pack of the other git trees and git blobs of the newest commits.
    PackRecent = 17,
    /// File data: a part of `packed-refs`, if that file is long.
    PackedRefs = 18,
    /// File data: a Git LFS object.
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
            | Self::PackTip
            | Self::PackIncrement
            | Self::PackRecent
            | Self::PackCommits
            | Self::PackTrees
            | Self::PackHistory
            | Self::IndexHeader
            | Self::IndexPart
            | Self::IndexTrailer
            | Self::PackedRefs
            | Self::LfsObject
            | Self::LargeFile => true,
        }
    }
}
