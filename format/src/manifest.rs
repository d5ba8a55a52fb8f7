//! The manifest of a snapshot: which segments make up each of its archives.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::json::JsonFormat;
use crate::limits::{MAX_FRAMES, MAX_MANIFEST_LEN};
use crate::{
    ArchiveKind, Digest, Error, ObjectId, PackKind, RepoName, Result, SegmentId, SegmentTable,
    SnapshotId,
};

const FORMAT: JsonFormat = JsonFormat {
    section: "manifest",
    version: Manifest::VERSION,
    max_len: MAX_MANIFEST_LEN,
};

/// The immutable description of a snapshot, stored as JSON.
///
/// To serve a range of an archive, the daemon finds its segments in the [`ArchiveLayout`], and
/// reads a slice of each. The other fields are for the next publish, which reuses the segments that
/// it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the JSON format: [`Manifest::VERSION`].
    pub version: u32,
    /// The repository.
    pub repo: RepoName,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The digest of the snapshot's refs.
    pub refs_digest: Digest,
    /// When the snapshot was made, in seconds since the epoch.
    pub created_at: u64,
    /// The archives of the snapshot.
    pub archives: BTreeMap<ArchiveKind, ArchiveLayout>,
    /// The packs of the snapshot, in the order in which git should search them.
    pub packs: Vec<PublishedPack>,
    /// The links of the commit-graph chain, oldest first, as in `commit-graph-chain`.
    pub commit_graphs: Vec<PublishedFile>,
    /// The ids that the snapshot's refs name. The next increment holds the objects that these don't
    /// reach.
    pub tips: Vec<ObjectId>,
    /// The runs of the work tree. The next publish reuses those that haven't changed.
    pub runs: Vec<ReusableRun>,
    /// A sentence about files of HEAD's tree that the work tree doesn't have, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The Git LFS objects of an LFS archive, in order. Other manifests have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lfs_objects: Vec<PublishedLfsObject>,
}

impl Manifest {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Parses JSON from [`Manifest::to_json`]. Other versions are refused.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let manifest: Self = FORMAT.parse(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns the JSON that is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        FORMAT.write(self, self.version)
    }

    /// Returns the ids of all segments that the manifest names: those of its archives, and those
    /// that the next publish may reuse.
    pub fn segments(&self) -> HashSet<SegmentId> {
        let mut named = HashSet::new();
        let mut add = |id: SegmentId| {
            named.insert(id);
        };
        for layout in self.archives.values() {
            layout
                .segments
                .iter()
                .chain([&layout.tail])
                .for_each(|segment| add(segment.id));
        }
        for pack in &self.packs {
            for file in [&pack.pack, &pack.index, &pack.reverse_index] {
                add(file.segment.id);
            }
        }
        for file in &self.commit_graphs {
            add(file.segment.id);
        }
        for object in &self.lfs_objects {
            add(object.header.segment.id);
            add(object.data.segment.id);
        }
        for run in &self.runs {
            let files = [
                Some(&run.work_tree),
                run.large_file.as_ref(),
                Some(&run.index_part),
            ];
            files
                .into_iter()
                .flatten()
                .for_each(|file| add(file.segment.id));
        }
        named
    }

    /// Refuses lengths that don't add up, and file names that are paths. Publishers and the HTTP
    /// server rely on this, and don't check them again.
    fn check(&self) -> Result<()> {
        self.archives.values().try_for_each(ArchiveLayout::check)?;
        let of_packs = self
            .packs
            .iter()
            .flat_map(|pack| [&pack.pack, &pack.index, &pack.reverse_index]);
        let of_lfs = self
            .lfs_objects
            .iter()
            .flat_map(|object| [&object.header, &object.data]);
        for file in of_packs.chain(&self.commit_graphs).chain(of_lfs) {
            if file.name.is_empty() {
                return malformed("a file of the git directory has no name");
            }
            file.check()?;
        }
        let of_runs = self.runs.iter().flat_map(|run| {
            [
                Some(&run.work_tree),
                run.large_file.as_ref(),
                Some(&run.index_part),
            ]
        });
        of_runs.flatten().try_for_each(PublishedFile::check)
    }
}

fn malformed(reason: &'static str) -> Result<()> {
    let section = FORMAT.section;
    Err(Error::Malformed { section, reason })
}

/// The layout of an archive: its segments in order, then its tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLayout {
    /// The digest of the TOC. It is the name of the archive, and its strong `ETag`.
    pub toc: Digest,
    /// The length of the whole archive in bytes.
    pub size: u64,
    /// The segments, in order.
    pub segments: Vec<SegmentRef>,
    /// The tail: TOC and seek table. It is stored like a segment; its id is the digest of its
    /// bytes.
    pub tail: SegmentRef,
}

impl ArchiveLayout {
    fn check(&self) -> Result<()> {
        let size = self
            .segments
            .iter()
            .chain([&self.tail])
            .try_fold(0_u64, |sum, segment| sum.checked_add(segment.len));
        if size == Some(self.size) {
            Ok(())
        } else {
            malformed("the segments of an archive don't add up to its size")
        }
    }
}

/// The id and the stored length of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(SegmentId, u64)", into = "(SegmentId, u64)")]
pub struct SegmentRef {
    /// The id of the segment.
    pub id: SegmentId,
    /// The length of its chunks and its table, as stored, in bytes.
    pub len: u64,
}

impl From<(SegmentId, u64)> for SegmentRef {
    fn from((id, len): (SegmentId, u64)) -> Self {
        Self { id, len }
    }
}

impl From<SegmentRef> for (SegmentId, u64) {
    fn from(segment: SegmentRef) -> Self {
        (segment.id, segment.len)
    }
}

/// A file that is a segment of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// The file name, without directories.
    pub name: String,
    /// The length of the file in bytes.
    pub size: u64,
    /// The segment of the file.
    pub segment: SegmentRef,
    /// The length of the frame of the segment's table, in bytes.
    pub table_len: u32,
    /// The length of the segment's content, the file and its padding, in bytes.
    pub content_len: u64,
    /// The lengths of the segment's chunks for the seek table, in runs of equal lengths:
    /// `(stored length, content length, number of chunks)`.
    pub frames: Vec<(u32, u32, u32)>,
}

impl PublishedFile {
    /// Refuses a segment table whose lengths differ from those of this file. The caller has
    /// verified the table by the segment's id.
    pub fn check_table(&self, table: &SegmentTable) -> Result<()> {
        table.check_lens(self.segment.len, self.table_len, self.content_len)
    }

    fn check(&self) -> Result<()> {
        if self.name.contains(['/', '\0']) || matches!(&*self.name, "." | "..") {
            return malformed("the name of a file is a path");
        }
        if self.size > self.content_len {
            return malformed("a file is longer than its segment");
        }
        let mut sums = (u64::from(self.table_len), 0_u64, 0_u64);
        for &(stored, content, count) in &self.frames {
            let times = |len: u32| u64::from(len).saturating_mul(count.into());
            sums.0 = sums.0.saturating_add(times(stored));
            sums.1 = sums.1.saturating_add(times(content));
            sums.2 = sums.2.saturating_add(count.into());
        }
        if (sums.0, sums.1) != (self.segment.len, self.content_len) {
            return malformed("the chunks of a segment don't add up to its lengths");
        }
        // A publisher writes one record of the seek table for each chunk. Without this limit, a
        // count of a few bytes would make it write 2^32 records.
        if sums.2 > MAX_FRAMES {
            return malformed("a segment has more chunks than a seek table can list");
        }
        Ok(())
    }
}

/// A pack with its indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPack {
    /// The kind of objects in the pack.
    pub kind: PackKind,
    /// The `.pack` file.
    pub pack: PublishedFile,
    /// The `.idx` file.
    pub index: PublishedFile,
    /// The `.rev` file.
    pub reverse_index: PublishedFile,
}

/// A Git LFS object and its tar header, which are two segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLfsObject {
    /// The tar header. Its `name` is that of the data.
    pub header: PublishedFile,
    /// The bytes of the object. Its `name` is the object's id: the SHA-256 of the bytes in
    /// hexadecimal.
    pub data: PublishedFile,
}

/// A run of the work tree, which a later publish may reuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReusableRun {
    /// The digest of the run's list of (path, mode, git blob id) and of all git attributes in
    /// force.
    pub key: Digest,
    /// The number of files in the run.
    pub files: u32,
    /// The segment with the tar members of the run.
    pub work_tree: PublishedFile,
    /// The data of the large file at the end of the run, if it has one.
    pub large_file: Option<PublishedFile>,
    /// The segment with the index entries of the run.
    pub index_part: PublishedFile,
}
