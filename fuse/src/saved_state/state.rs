//! The state that the old process sends: descriptions of what its numbers stand for.
//!
//! Segments and bytes come many times in it. So they are in tables, and the rest names them by
//! their place there.

use std::path::PathBuf;
use std::time::Duration;

use cachewfs_format::{RepoName, SnapshotId};
use serde::{Deserialize, Serialize};

use super::Text;
use crate::ino::{Area, Ino, Tree};
use crate::mount_table::DeviceNumber;
use crate::negotiated::Negotiated;
use crate::report::{FailedReadReport, FailureReport};

/// The format of [`State`]. It grows by 1 with every change after which the state of an old program
/// can't be read: a field of another type or meaning, or a new field without a default.
pub(crate) const FORMAT: u32 = 1;

/// All that the new process needs. The bytes of `blobs` follow it in the same message.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub repositories: Vec<RepositoryState>,
    pub names: NamesState,
    pub segments: Vec<SegmentState>,
    /// The inodes that an earlier message lacks.
    pub inodes: Vec<InodeState>,
    /// The inodes of an earlier message with other lookups now, or with 0 if they are forgotten.
    pub recounted: Vec<(Ino, u64)>,
    pub files: Vec<OpenFileState>,
    /// The handle of the next open file.
    pub next_file: u64,
    pub directories: Vec<OpenDirectoryState>,
    /// The handle of the next open directory.
    pub next_directory: u64,
    /// The open segments that the kernel reads itself, each with the kernel's id of its file.
    pub backing: Vec<(usize, u32)>,
    /// `None` before the gate is closed.
    pub session: Option<SessionState>,
    pub clones: Vec<CloneState>,
}

/// The connection to the kernel, and the control socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionState {
    pub negotiated: Negotiated,
    pub device: DeviceNumber,
    /// The directory with the file of the control socket.
    pub socket_directory: PathBuf,
}

/// A repository as the old process shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RepositoryState {
    pub name: RepoName,
    /// The place of the frame of the TOC among the blobs.
    pub toc: usize,
    /// The path of the archive's immutable URL.
    pub path: String,
    pub etag: String,
    pub archive_len: u64,
    pub snapshot: SnapshotId,
    pub notice: Option<String>,
    pub has_loaded_work_tree: bool,
    pub searched: Vec<Text>,
    /// The files that are shown but no longer in the snapshot, each with the seconds since it left.
    pub superseded: Vec<(FileState, u64)>,
    /// The names that the kernel may know of the small trees, each with its inode.
    pub shown: Vec<(Tree, Text, Ino)>,
    pub catch_ups: u64,
    pub checked_at: u64,
    pub last_error: Option<String>,
    pub failed_reads: Vec<FailedReadReport>,
}

/// The answers of daemons about names that are no repositories.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct NamesState {
    /// The names that are directories, because the daemons have no such repository.
    pub directories: Vec<RepoName>,
    /// The hosts, if a daemon has ever said them.
    pub hosts: Option<Vec<String>>,
    pub outage: Option<OutageState>,
}

/// The daemons' silence.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OutageState {
    pub failure: FailureReport,
    /// How long lookups still fail without a request.
    pub believed_for: Duration,
}

/// A segment, and where it can be fetched.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SegmentState {
    pub record: Text,
    pub repo: RepoName,
    pub path: String,
    pub offset: u64,
}

/// An inode that the kernel knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InodeState {
    pub ino: Ino,
    pub lookups: u64,
    pub node: NodeState,
}

/// The file or directory that an inode stands for. Repositories are named by their place.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NodeState {
    Names {
        area: Area,
        prefix: String,
    },
    Unloaded {
        area: Area,
        name: RepoName,
    },
    TreeDirectory {
        repository: usize,
        tree: Tree,
        path: Text,
    },
    TreeFile {
        repository: usize,
        tree: Tree,
        file: FileState,
    },
    WorkTreeDirectory {
        repository: usize,
        path: Text,
    },
    WorkTreeFile {
        repository: usize,
        path: Text,
        file: WorkTreeFileState,
    },
}

/// A file of a small tree.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileState {
    pub path: Text,
    pub content: ContentState,
    pub mtime: i64,
}

/// The content of a file: the place of its bytes or of its segment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ContentState {
    Bytes(usize),
    Segment(usize),
}

/// A file of a work tree.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkTreeFileState {
    /// The place of the segment of the file's run.
    pub members: usize,
    /// The place of the segment of the run's large file.
    pub large_file: Option<usize>,
    pub path: Text,
    pub blob: Text,
    pub size: u64,
    pub is_symlink: bool,
    pub is_executable: bool,
    pub mtime: i64,
}

/// An open file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenFileState {
    pub handle: u64,
    pub file: OpenedState,
}

/// The content of an open file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OpenedState {
    Content(ContentState),
    WorkTree(WorkTreeFileState),
}

/// An open directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenDirectoryState {
    pub handle: u64,
    pub ino: Ino,
    /// The entries, if the kernel has begun to read them.
    pub listing: Option<Vec<(Text, NodeState)>>,
}

/// A registered clone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CloneState {
    /// The user, unless it is the owner of the mount or root.
    pub uid: Option<u32>,
    pub repo: RepoName,
    pub directory: PathBuf,
}
