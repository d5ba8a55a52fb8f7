//! Making one pack with `git pack-objects`.

use std::path::PathBuf;

use cachewfs_format::{PackKind, PublishedFile};

use super::PublishError;
use super::job::PublishJob;
use super::segments::{INDEX_CHUNK_LEN, RANDOM_CHUNK_LEN, SEQUENTIAL_CHUNK_LEN, SegmentSink};
use crate::mirror::{GitCommand, PACK_WINDOW_MEMORY};

/// A pack in the temporary directory.
#[derive(Debug)]
pub(super) struct NewPack {
    pub(super) kind: PackKind,
    /// The path of the pack's files without the extension.
    base: PathBuf,
}

/// Packs the objects that the file `list` names in lines `<oid> <path>`. Returns `None` if there
/// are no objects.
pub(super) fn pack_list(
    job: &PublishJob<'_>,
    kind: PackKind,
    list: &str,
) -> Result<Option<NewPack>, PublishError> {
    let command = pack_objects(job, kind).input_file(job.open(list)?);
    run(job, kind, command)
}

/// Packs the objects that the refs reach and `known` (lines `^<oid>`) doesn't. Returns `None` if
/// there are no such objects.
pub(super) fn pack_new(job: &PublishJob<'_>, known: &str) -> Result<Option<NewPack>, PublishError> {
    let command = pack_objects(job, PackKind::Increment)
        .args(["--revs", "--all"])
        .input(known);
    run(job, PackKind::Increment, command)
}

fn pack_objects(job: &PublishJob<'_>, kind: PackKind) -> GitCommand {
    // Git doesn't deflate the objects, because zstd compresses them better: it sees all objects of
    // a chunk, deflate only one object at a time. On git's repository, commits shrink from 35.4 to
    // 20.5 MB, trees from 70.8 to 15.3 and history from 187 to 44.5 (2026-11). Git also reads them
    // faster. `--no-reuse-object` is needed, because git would copy deflated objects as they are.
    let command = job
        .git("pack-objects")
        .config("pack.threads", job.config.git.pack_threads)
        .config("pack.windowMemory", PACK_WINDOW_MEMORY)
        .config("pack.writeReverseIndex", true)
        .config("pack.packSizeLimit", 0)
        .config("core.multiPackIndex", false)
        .args(["-q", "--non-empty", "--delta-base-offset"])
        .args(["--compression=0", "--no-reuse-object"]);
    match kind {
        // No deltas: these objects are read one by one in order, and a delta's base may be
        // elsewhere.
        PackKind::Tip | PackKind::Commits => command.args(["--window=0"]),
        PackKind::Increment | PackKind::Recent | PackKind::Trees | PackKind::History => command,
    }
}

fn run(
    job: &PublishJob<'_>,
    kind: PackKind,
    command: GitCommand,
) -> Result<Option<NewPack>, PublishError> {
    let hash = command.args([job.tmp_path("pack")]).text()?;
    // If there is nothing to pack, git with `--non-empty` prints nothing, or a name without a file.
    let base = job.tmp_path(&format!("pack-{hash}"));
    Ok(base
        .with_extension("pack")
        .exists()
        .then_some(NewPack { kind, base }))
}

impl NewPack {
    /// Returns the name of the `.pack` file.
    pub(super) fn name(&self) -> String {
        let path = self.base.with_extension("pack");
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Returns the length of the `.pack` file in bytes.
    pub(super) fn len(&self) -> Result<u64, PublishError> {
        let path = self.base.with_extension("pack");
        let metadata = path.metadata().map_err(PublishError::at(&path))?;
        Ok(metadata.len())
    }

    /// Reads the whole `.idx` file.
    pub(super) fn read_index(&self) -> Result<Vec<u8>, PublishError> {
        let path = self.base.with_extension("idx");
        std::fs::read(&path).map_err(PublishError::at(&path))
    }

    /// Makes segments of the `.idx` and the `.rev` file, and removes both files.
    pub(super) fn store_indexes(
        &self,
        sink: &mut SegmentSink,
    ) -> Result<(PublishedFile, PublishedFile), PublishError> {
        let index = self.store(sink, "idx", INDEX_CHUNK_LEN)?;
        Ok((index, self.store(sink, "rev", INDEX_CHUNK_LEN)?))
    }

    /// Makes a segment of the `.pack` file, and removes the file.
    pub(super) fn store_data(&self, sink: &mut SegmentSink) -> Result<PublishedFile, PublishError> {
        let chunk_len = if self.kind.is_read_whole() {
            SEQUENTIAL_CHUNK_LEN
        } else {
            RANDOM_CHUNK_LEN
        };
        self.store(sink, "pack", chunk_len)
    }

    fn store(
        &self,
        sink: &mut SegmentSink,
        extension: &str,
        chunk_len: usize,
    ) -> Result<PublishedFile, PublishError> {
        // The file is removed at once, so that the disk doesn't hold all packs and all segments.
        let path = self.base.with_extension(extension);
        let file = sink.store_file(&path, chunk_len)?;
        std::fs::remove_file(&path).map_err(PublishError::at(&path))?;
        Ok(file)
    }
}
