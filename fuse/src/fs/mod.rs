//! Answers file system calls as plain values. Knows nothing of FUSE sessions or HTTP.

mod attr;
mod directory;
mod error;
mod fs;
mod hand_over;
mod handles;
mod inode;
mod listing;
mod lookup;
mod node;
mod open;
mod open_file;
mod outcome;
mod passthrough;
mod recovery;
#[cfg(test)]
mod tests;

pub(crate) use attr::{Attr, FileKind};
pub(crate) use error::FsError;
pub(crate) use fs::Fs;
pub(crate) use listing::{DirectoryEntry, Listing};
pub(crate) use node::Node;
pub(crate) use passthrough::OpenReply;
