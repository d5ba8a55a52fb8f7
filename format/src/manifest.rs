//! The manifest of a snapshot: which segments make up each of its archives.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::json::JsonFormat;
use crate::limits::{MAX_FRAMES, MAX_MANIFEST_LEN};
use crate::{
    ArchiveKind, Digest, Error, ObjectId, RepoName, Result, SegmentId, SegmentTable, SnapshotId,
};

const FORMAT: JsonFormat = JsonFormat {
    section: "manifest",
    version: Manifest::VERSION,
    max_len: MAX_MANIFEST_LEN,
};

/// What is stored once for each snapshot, as JSON.
///
/// Serving a range of an archive is slicing [`ArchiveLayout`], then reading slices of segments.
/// The rest is what the next publish builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this form: [`Manifest::VERSION`].
    pub version: u32,
    /// The repository.
    pub repo: RepoName,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The digest of its refs.
    pub refs_digest: Digest,
    /// When it was made, in seconds since the epoch.
    pub created_at: u64,
    /// Its archives.
    pub archives: BTreeMap<ArchiveKind, ArchiveLayout>,
    /// Its packs, in the order in which git should search them.
    pub packs: Vec<PublishedPack>,
    /// The links of its commit-graph chain, oldest first, as in `commit-graph-chain`.
    pub commit_graphs: Vec<PublishedFile>,
    /// The tips of its refs: the next increment holds what they don't reach.
    pub tips: Vec<ObjectId>,
    /// The runs of its work tree, to be used again where nothing changed.
    pub runs: Vec<ReusableRun>,
    /// A sentence about files of HEAD's tree that the work tree lacks, if it lacks some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The Git LFS objects of an LFS archive, in order; none in other manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lfs_objects: Vec<PublishedLfsObject>,
}

impl Manifest {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Parses what [`Manifest::to_json`] wrote; refuses other versions.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let manifest: Self = FORMAT.parse(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        FORMAT.write(self, self.version)
    }

    /// All that a manifest names, in its archives and for the next publish to use again.
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

    /// Refuses lengths that don't add up and names that are paths: publishing and serving build on
    /// them without looking again.
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

/// The bytes of an archive: its segments in order, then its tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLayout {
    /// The digest of its TOC: its name, and its strong `ETag`.
    pub toc: Digest,
    /// Its whole length in bytes.
    pub size: u64,
    /// Its segments, in order.
    pub segments: Vec<SegmentRef>,
    /// TOC and seek table, stored like a segment under the digest of these bytes.
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

/// A segment and its length, chunks and table, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(SegmentId, u64)", into = "(SegmentId, u64)")]
pub struct SegmentRef {
    /// Its id.
    pub id: SegmentId,
    /// Its stored length in bytes.
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

/// The kinds of pack of `DESIGN.md` section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// HEAD's git trees and git blobs.
    Tip,
    /// All other git trees and git blobs of the newest commits.
    Recent,
    /// What was new at a later publish.
    Increment,
    /// All commits and tags.
    Commits,
    /// All other git trees.
    Trees,
    /// All other git blobs.
    History,
}

/// One file that is a segment of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// File name, without directories.
    pub name: String,
    /// Length of the file in bytes.
    pub size: u64,
    /// Its segment.
    pub segment: SegmentRef,
    /// Length of the frame of the segment's table.
    pub table_len: u32,
    /// Length of the segment's content: the file and its padding.
    pub content_len: u64,
    /// Lengths (stored, content) of the segment's chunks as runs `(stored, content, count)`, for
    /// the seek table.
    pub frames: Vec<(u32, u32, u32)>,
}

impl PublishedFile {
    /// Refuses a table, verified by the segment's id, that doesn't fit the lengths given here.
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
        // A writer of archives repeats each as often as it says.
        if sums.2 > MAX_FRAMES {
            return malformed("a segment has more chunks than a seek table can list");
        }
        Ok(())
    }
}

/// A pack with its indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPack {
    /// Which part of the layout it is.
    pub kind: PackKind,
    /// The `.pack` file.
    pub pack: PublishedFile,
    /// The `.idx` file.
    pub index: PublishedFile,
    /// The `.rev` file.
    pub reverse_index: PublishedFile,
}

/// A Git LFS object with its tar header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLfsObject {
    /// The tar header; named like the data.
    pub header: PublishedFile,
    /// The object, named by its id: the SHA-256 of its bytes in hexadecimal.
    pub data: PublishedFile,
}

/// A run of the work tree that a later publish may use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReusableRun {
    /// The digest of the run's (path, mode, git blob id) list and of all attributes in force.
    pub key: Digest,
    /// The number of its files.
    pub files: u32,
    /// The tar members.
    pub work_tree: PublishedFile,
    /// The data of the large file that ends the run, if it has one.
    pub large_file: Option<PublishedFile>,
    /// The index entries.
    pub index_part: PublishedFile,
}
