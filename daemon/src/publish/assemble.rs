//! Putting segments together into an archive: their order, the TOC and the seek table.

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Digest, FrameSize, GitPath, ObjectId, PackKind, PublishedFile,
    RepoName, Role, SeekTable, SegmentId, SegmentRef, Toc, TocFile, TocSegment,
};

use super::PublishError;
use super::checkout::{Checkout, CheckoutRun};
use super::feed::BuildFeed;
use super::git_files::git_member;
use super::members::MemberWriter;
use super::segments::SegmentSink;
use super::{fixed_times, index, packed_refs};

/// Returns the modification time of each pack. Increments must come newest first in `kinds`.
pub(super) fn pack_mtimes(kinds: &[PackKind]) -> Vec<i64> {
    let is_increment = |kind: &&PackKind| **kind == PackKind::Increment;
    let mut older = kinds.iter().filter(is_increment).count();
    kinds
        .iter()
        .map(|&kind| {
            if kind == PackKind::Increment {
                older = older.saturating_sub(1);
            }
            fixed_times::of_pack(kind, older)
        })
        .collect()
}

/// The writer of one archive, whose segments are placed one after the other.
#[derive(Debug)]
pub(super) struct ArchiveWriter<'a> {
    kind: ArchiveKind,
    feed: Option<&'a BuildFeed>,
    segments: Vec<TocSegment>,
    frames: Vec<FrameSize>,
    hot_segments: usize,
}

impl<'a> ArchiveWriter<'a> {
    /// Begins an archive. Each segment also goes to `feed` when it is placed, if there is a feed.
    pub(super) fn new(kind: ArchiveKind, feed: Option<&'a BuildFeed>) -> Self {
        Self {
            kind,
            feed,
            segments: Vec::new(),
            frames: Vec::new(),
            hot_segments: 0,
        }
    }

    pub(super) fn kind(&self) -> ArchiveKind {
        self.kind
    }

    /// Ends the hot front: every reader needs the segments that were placed so far.
    pub(super) fn end_hot_front(&mut self) {
        self.hot_segments = self.segments.len();
    }

    /// Places a segment, which is new in `sink` or is in the store already.
    pub(super) fn place(
        &mut self,
        sink: &SegmentSink,
        role: Role,
        segment: &PublishedFile,
        file: Option<TocFile>,
    ) {
        // Only new segments have a file to feed. A feed exists for a first snapshot only, and all
        // of its segments are new.
        if let Some(feed) = self.feed
            && let Some(path) = sink.path_of(segment.segment.id)
        {
            feed.push(self.kind, segment.segment, path.to_owned());
        }
        for &(stored_len, content_len, count) in &segment.frames {
            let frame = FrameSize {
                stored_len,
                content_len,
            };
            self.frames.extend(std::iter::repeat_n(
                frame,
                usize::try_from(count).unwrap_or(0),
            ));
        }
        self.frames.push(FrameSize {
            stored_len: segment.table_len,
            content_len: 0,
        });
        self.segments.push(TocSegment {
            id: segment.segment.id,
            role,
            stored_len: segment.segment.len,
            table_len: segment.table_len,
            content_len: segment.content_len,
            file,
        });
    }

    /// Places a segment that has only the tar header of a file. The file's data follows.
    fn header(
        &mut self,
        sink: &mut SegmentSink,
        path: &str,
        mode: u32,
        file: (u64, i64),
        data: SegmentId,
    ) -> Result<(), PublishError> {
        let (size, mtime) = file;
        let mut member = git_member(self.kind, path.as_bytes(), mode)?;
        member.mtime = mtime;
        let mut members = MemberWriter::begin(sink)?;
        members.file_elsewhere(member, size, data)?;
        let header = members.finish(sink)?;
        self.place(sink, Role::Header, &header, None);
        Ok(())
    }

    /// Places a file of the git directory with this path, data and modification time.
    ///
    /// Header and data are two segments, so that all archives share the segment with the data.
    pub(super) fn git_file(
        &mut self,
        sink: &mut SegmentSink,
        role: Role,
        (path, data, mtime): (&str, &PublishedFile, i64),
    ) -> Result<(), PublishError> {
        self.header(sink, path, 0o444, (data.size, mtime), data.segment.id)?;
        let path = GitPath::parse(path.as_bytes())?;
        let size = data.size;
        self.place(sink, role, data, Some(TocFile { path, size, mtime }));
        Ok(())
    }

    /// Places the file `packed-refs` in parts, if it is too long to be among the small files.
    pub(super) fn packed_refs(
        &mut self,
        sink: &mut SegmentSink,
        packed_refs: &[u8],
    ) -> Result<(), PublishError> {
        if !packed_refs::is_cut(packed_refs) {
            return Ok(());
        }
        let mut stored = Vec::new();
        let mut parts = packed_refs::parts(packed_refs).into_iter().peekable();
        while let Some(part) = parts.next() {
            let (size, mut part) = (part.len() as u64, part.to_vec());
            // Tar pads a file to whole blocks: the last part has the padding of the whole file.
            if parts.peek().is_none() {
                let padding = cachewfs_format::padding_len(packed_refs.len() as u64);
                part.resize(part.len() + padding, 0);
            }
            stored.push(sink.store_bytes(&part, size, Vec::new())?);
        }
        let Some(first) = stored.first() else {
            return Ok(());
        };
        let file = (packed_refs.len() as u64, fixed_times::GIT_DIRECTORY);
        self.header(sink, "packed-refs", 0o644, file, first.segment.id)?;
        for part in &stored {
            let part = ("packed-refs", part, fixed_times::GIT_DIRECTORY);
            self.part(sink, Role::PackedRefs, part)?;
        }
        Ok(())
    }

    /// Places a file of a pack: its index, reverse index or data.
    pub(super) fn pack_file(
        &mut self,
        sink: &mut SegmentSink,
        role: Role,
        (data, mtime): (&PublishedFile, i64),
    ) -> Result<(), PublishError> {
        let path = format!("objects/pack/{}", data.name);
        self.git_file(sink, role, (&path, data, mtime))
    }

    /// Places the index and the work tree.
    pub(super) fn checkout(
        &mut self,
        sink: &mut SegmentSink,
        checkout: &Checkout,
    ) -> Result<(), PublishError> {
        self.index(sink, checkout)?;
        for run in &checkout.runs {
            self.run(sink, run);
        }
        Ok(())
    }

    /// Places git's index: a header, one part per run, and a trailer.
    fn index(&mut self, sink: &mut SegmentSink, checkout: &Checkout) -> Result<(), PublishError> {
        // An unchanged run keeps its part as a stored segment. Only the short header and trailer,
        // which have the number of entries and the checksum, differ with each snapshot.
        let runs = &checkout.runs;
        let header = index::header(runs.iter().map(|run| run.reuse.files).sum());
        let mut trailer = checkout.index_trailer.clone();
        let trailer_len = trailer.len() as u64;
        let entries_len: u64 = runs.iter().map(|run| run.reuse.index_part.size).sum();
        let size = header.len() as u64 + entries_len + trailer_len;
        trailer.resize(trailer.len() + cachewfs_format::padding_len(size), 0);
        let header = sink.store_bytes(&header, header.len() as u64, Vec::new())?;
        let trailer = sink.store_bytes(&trailer, trailer_len, Vec::new())?;

        let mtime = checkout.index_mtime;
        self.header(sink, "index", 0o644, (size, mtime), header.segment.id)?;
        self.part(sink, Role::IndexHeader, ("index", &header, mtime))?;
        for run in runs {
            let part = ("index", &run.reuse.index_part, mtime);
            self.part(sink, Role::IndexPart, part)?;
        }
        self.part(sink, Role::IndexTrailer, ("index", &trailer, mtime))
    }

    /// Places one part of a file of the git directory. The tar header comes before the first part.
    fn part(
        &mut self,
        sink: &SegmentSink,
        role: Role,
        (path, part, mtime): (&str, &PublishedFile, i64),
    ) -> Result<(), PublishError> {
        let path = GitPath::parse(path.as_bytes())?;
        self.place(
            sink,
            role,
            part,
            Some(TocFile {
                path,
                size: part.size,
                mtime,
            }),
        );
        Ok(())
    }

    /// Places the segments of one run of the work tree.
    fn run(&mut self, sink: &SegmentSink, run: &CheckoutRun) {
        self.place(sink, Role::WorkTree, &run.reuse.work_tree, None);
        if let (Some(data), Some((path, mtime))) = (&run.reuse.large_file, &run.large_file) {
            let file = TocFile {
                path: path.clone(),
                size: data.size,
                mtime: *mtime,
            };
            self.place(sink, Role::LargeFile, data, Some(file));
        }
    }

    /// Ends the archive with its TOC and its seek table. Returns the archive's layout.
    pub(super) fn finish(
        self,
        sink: &mut SegmentSink,
        repo: &RepoName,
        (commit, refs_digest): (ObjectId, Digest),
    ) -> Result<ArchiveLayout, PublishError> {
        let Self {
            kind,
            segments,
            mut frames,
            hot_segments,
            ..
        } = self;
        let refs: Vec<_> = segments
            .iter()
            .map(|segment| SegmentRef {
                id: segment.id,
                len: segment.stored_len,
            })
            .collect();
        let toc = Toc {
            kind,
            repo: repo.clone(),
            commit,
            refs_digest,
            hot_segments: u32::try_from(hot_segments).unwrap_or(u32::MAX),
            segments,
        };
        let (digest, mut tail) = toc.encode()?;
        let stored_len = u32::try_from(tail.len()).unwrap_or(u32::MAX);
        frames.push(FrameSize {
            stored_len,
            content_len: 0,
        });
        tail.extend(SeekTable { frames }.encode()?);
        let id = SegmentId(Digest::of(&tail));
        sink.store_raw(id, &tail)?;
        let tail = SegmentRef {
            id,
            len: tail.len() as u64,
        };
        let size = refs.iter().chain([&tail]).map(|segment| segment.len).sum();
        Ok(ArchiveLayout {
            toc: digest,
            size,
            segments: refs,
            tail,
        })
    }
}
