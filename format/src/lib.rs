//! The bytes of a cachewfs archive, and the types that the daemon and its clients share.
//!
//! `docs/format.md` is the normative description of the bytes. This crate does no I/O, no async and
//! no logging. A decoder accepts any bytes: it never panics, and it reserves no more memory than
//! the length of its input allows. An encoder refuses values that a decoder would refuse.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    expect(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        reason = "a test that overflows should fail"
    )
)]

pub mod api;
mod changed_paths;
mod chunk;
mod deletions;
mod digest;
mod dot_git;
mod error;
mod git_hash;
mod git_head;
mod git_index;
mod git_path;
mod inode;
mod json;
pub mod limits;
mod manifest;
mod object_id;
mod path_sequence;
mod pointer;
mod printable;
mod repo_name;
mod seek_table;
mod segment;
mod snapshot_id;
mod tar_member;
mod toc;
mod wire;

pub use changed_paths::ARE_CHANGED_PATHS_PORTABLE;
pub use chunk::{ChunkEncoding, decode_chunk, encode_chunk};
pub use deletions::Deletions;
pub use digest::{Digest, SegmentId};
pub use error::{Error, Result};
pub use git_hash::GitHash;
pub use git_head::{GitHead, is_ref_name};
pub use git_index::{GitIndex, GitIndexWriter, IndexEntry, index_part_entries};
pub use git_path::GitPath;
pub use inode::{inode_of, work_tree_inode};
pub use manifest::{
    ArchiveLayout, Manifest, PublishedFile, PublishedLfsObject, PublishedPack, ReusableRun,
    SegmentRef,
};
pub use object_id::ObjectId;
pub use path_sequence::PathSequence;
pub use pointer::{ArchiveSummary, Pointer, ReplacedSnapshot};
pub use printable::{Colours, is_printable, printable, printable_event};
pub use repo_name::RepoName;
pub use seek_table::{FrameSize, SeekTable};
pub use segment::{Chunk, Content, Entry, EntryKind, PlacedChunk, SegmentTable, SegmentWriter};
pub use snapshot_id::SnapshotId;
pub use tar_member::{end_of_archive, member_header, padding_len};
pub use toc::{ArchiveKind, PackKind, Role, SnapshotPart, Toc, TocFile, TocLocation, TocSegment};
