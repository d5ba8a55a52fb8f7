//! The state that the old process sends: descriptions of what its numbers stand for.
//!
//! Segments and bytes come many times in it. So they are in tables, and the rest names them by
//! their place there.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::{RepoName, SnapshotId, TocSegment};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::HandOverError;
use crate::control::protocol::{FailedReadReport, FailureReport};
use crate::fs::{Area, Ino, Tree};
use crate::mount_table::DeviceNumber;
use crate::repository::Repository;
use crate::segment::{Segment, SegmentLocation, Segments};
use crate::session::Negotiated;
use crate::view::FileContent;

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

impl NodeState {
    /// Returns the place of its repository, if it has one.
    fn repository(&self) -> Option<usize> {
        match self {
            Self::Names { .. } | Self::Unloaded { .. } => None,
            Self::TreeDirectory { repository, .. }
            | Self::TreeFile { repository, .. }
            | Self::WorkTreeDirectory { repository, .. }
            | Self::WorkTreeFile { repository, .. } => Some(*repository),
        }
    }
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

/// Bytes that are mostly text. JSON has no bytes, so each becomes the character of its number.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text(pub Vec<u8>);

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().copied().map(char::from).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = text.chars().map(|character| {
            u8::try_from(u32::from(character)).map_err(|_| serde::de::Error::custom("not a byte"))
        });
        bytes.collect::<Result<_, _>>().map(Self)
    }
}

/// Collects the state of the old process.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    pub state: State,
    pub blobs: Vec<Arc<[u8]>>,
    /// The places of blobs and segments by address. The vectors keep them alive, so that no other
    /// value gets the address.
    blob_places: HashMap<usize, usize>,
    segment_places: HashMap<usize, usize>,
    segments: Vec<Arc<Segment>>,
    repository_places: HashMap<RepoName, usize>,
}

impl Saver {
    pub(crate) fn blob(&mut self, bytes: &Arc<[u8]>) -> usize {
        *self
            .blob_places
            .entry(bytes.as_ptr().addr())
            .or_insert_with(|| {
                self.blobs.push(Arc::clone(bytes));
                self.blobs.len() - 1
            })
    }

    pub(crate) fn segment(&mut self, segment: &Arc<Segment>) -> Result<usize, HandOverError> {
        if let Some(&place) = self.segment_places.get(&Arc::as_ptr(segment).addr()) {
            return Ok(place);
        }
        let SegmentLocation { repo, path, offset } = segment.location();
        let record = segment.record().to_bytes();
        let place = self.segments.len();
        self.state.segments.push(SegmentState {
            record: Text(record.map_err(HandOverError::state)?),
            repo,
            path: path.to_string(),
            offset,
        });
        self.segments.push(Arc::clone(segment));
        self.segment_places
            .insert(Arc::as_ptr(segment).addr(), place);
        Ok(place)
    }

    pub(crate) fn content(&mut self, content: &FileContent) -> Result<ContentState, HandOverError> {
        Ok(match content {
            FileContent::Bytes(bytes) => ContentState::Bytes(self.blob(bytes)),
            FileContent::Segment(segment) => ContentState::Segment(self.segment(segment)?),
        })
    }

    /// Adds a repository. All are added before the inodes, which name them.
    pub(crate) fn add_repository(&mut self, repository: RepositoryState) {
        let place = self.state.repositories.len();
        self.repository_places
            .insert(repository.name.clone(), place);
        self.state.repositories.push(repository);
    }

    pub(crate) fn repository(&self, repository: &Repository) -> Option<usize> {
        self.repository_places.get(&repository.name).copied()
    }

    /// Returns the segments in the order of their places.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }
}

/// Finds what the places in a state stand for, in the new process.
#[derive(Debug)]
pub(crate) struct Loader {
    segments: Vec<Arc<Segment>>,
    blobs: Vec<Arc<[u8]>>,
    /// The repositories in the order of their places. A place is empty if its repository can't be
    /// shown again.
    pub repositories: Vec<Option<Arc<Repository>>>,
}

impl Loader {
    pub(crate) fn new(
        segments: &[SegmentState],
        blobs: Vec<Arc<[u8]>>,
        known: &Segments,
    ) -> Result<Self, HandOverError> {
        let segments = segments.iter().map(|segment| {
            let record = TocSegment::from_bytes(&segment.record.0).map_err(HandOverError::state)?;
            let location = SegmentLocation {
                repo: segment.repo.clone(),
                path: segment.path.as_str().into(),
                offset: segment.offset,
            };
            Ok(known.intern(&record, location))
        });
        Ok(Self {
            segments: segments.collect::<Result<_, HandOverError>>()?,
            blobs,
            repositories: Vec::new(),
        })
    }

    /// Returns the segments in the order of their places.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub(crate) fn blob(&self, place: usize) -> Result<&Arc<[u8]>, HandOverError> {
        let blob = self.blobs.get(place);
        blob.ok_or_else(|| HandOverError::state("bytes that were not sent"))
    }

    pub(crate) fn segment(&self, place: usize) -> Result<&Arc<Segment>, HandOverError> {
        let segment = self.segments.get(place);
        segment.ok_or_else(|| HandOverError::state("a segment that was not sent"))
    }

    pub(crate) fn repository(&self, place: usize) -> Result<Arc<Repository>, HandOverError> {
        let repository = self.repositories.get(place).cloned().flatten();
        repository.ok_or_else(|| HandOverError::state("a repository that was not sent"))
    }

    /// Returns whether the repository of `node` is there, if it has one.
    pub(crate) fn has_repository_of(&self, node: &NodeState) -> bool {
        let mut place = node.repository().into_iter();
        place.all(|place| self.repository(place).is_ok())
    }

    pub(crate) fn content(&self, content: &ContentState) -> Result<FileContent, HandOverError> {
        Ok(match *content {
            ContentState::Bytes(place) => FileContent::Bytes(Arc::clone(self.blob(place)?)),
            ContentState::Segment(place) => FileContent::Segment(Arc::clone(self.segment(place)?)),
        })
    }
}
