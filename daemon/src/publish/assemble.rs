//! Putting segments together to an archive: their order, TOC and seek table.

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, FrameSize, GitPath, PackKind, PublishedFile, PublishedPack,
    RepoName, Role, SeekTable, SegmentId, SegmentRef, Toc, TocFile, TocSegment, end_of_archive,
};

use super::PublishError;
use super::checkout::{Checkout, CheckoutRun};
use super::commit_graph::CHAIN_DIRECTORY;
use super::git_files::{GitFiles, git_member};
use super::members::MemberWriter;
use super::segments::SegmentSink;
use super::{index, times};

/// The parts of both archives of a snapshot.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) repo: &'a RepoName,
    pub(super) git_files: GitFiles<'a>,
    /// In the order in which git searches them.
    pub(super) packs: &'a [PublishedPack],
    /// Absent if the tree of HEAD can't be checked out; then there is only a mirror archive.
    pub(super) checkout: Option<&'a Checkout>,
}

/// Puts an archive together, hot parts first.
pub(super) fn assemble(
    parts: &Parts<'_>,
    sink: &mut SegmentSink,
    kind: ArchiveKind,
) -> Result<ArchiveLayout, PublishError> {
    let small = parts.git_files.store(sink, kind)?;
    let mut archive = ArchiveWriter {
        kind,
        sink,
        segments: Vec::new(),
        frames: Vec::new(),
    };
    archive.place(Role::Refs, &small, None);
    for link in parts.git_files.commit_graphs.iter().rev() {
        let path = format!("{CHAIN_DIRECTORY}/{}", link.name);
        archive.git_file(Role::CommitGraph, &path, link, times::GIT_DIRECTORY)?;
    }
    let mtimes = pack_mtimes(parts.packs);
    let packs = || parts.packs.iter().zip(mtimes.iter().copied());
    for (pack, mtime) in packs() {
        archive.pack_file(Role::PackIndex, &pack.index, mtime)?;
    }
    for (pack, mtime) in packs() {
        archive.pack_file(Role::PackReverseIndex, &pack.reverse_index, mtime)?;
    }
    for kind in [PackKind::Tip, PackKind::Increment] {
        for (pack, mtime) in packs().filter(|(pack, _)| pack.kind == kind) {
            archive.pack_file(pack_role(kind), &pack.pack, mtime)?;
        }
    }
    if let (ArchiveKind::Checkout, Some(checkout)) = (kind, parts.checkout) {
        archive.index(parts, checkout)?;
        for run in &checkout.runs {
            archive.run(run);
        }
    }
    let hot_segments = archive.segments.len();
    for kind in [
        PackKind::Recent,
        PackKind::Commits,
        PackKind::Trees,
        PackKind::History,
    ] {
        for (pack, mtime) in packs().filter(|(pack, _)| pack.kind == kind) {
            archive.pack_file(pack_role(kind), &pack.pack, mtime)?;
        }
    }
    let end = archive.sink.store_bytes(&end_of_archive(), 0, Vec::new())?;
    archive.place(Role::End, &end, None);
    archive.finish(parts, hot_segments)
}

fn pack_role(kind: PackKind) -> Role {
    match kind {
        PackKind::Tip => Role::PackTip,
        PackKind::Increment => Role::PackIncrement,
        PackKind::Recent => Role::PackRecent,
        PackKind::Commits => Role::PackCommits,
        PackKind::Trees => Role::PackTrees,
        PackKind::History => Role::PackHistory,
    }
}

/// The modification time of each pack; increments come newest first.
fn pack_mtimes(packs: &[PublishedPack]) -> Vec<i64> {
    let is_increment = |pack: &&PublishedPack| pack.kind == PackKind::Increment;
    let mut older = packs.iter().filter(is_increment).count();
    packs
        .iter()
        .map(|pack| {
            if pack.kind == PackKind::Increment {
                older = older.saturating_sub(1);
            }
            times::of_pack(pack.kind, older)
        })
        .collect()
}

struct ArchiveWriter<'a> {
    kind: ArchiveKind,
    sink: &'a mut SegmentSink,
    segments: Vec<TocSegment>,
    frames: Vec<FrameSize>,
}

impl ArchiveWriter<'_> {
    fn place(&mut self, role: Role, segment: &PublishedFile, file: Option<TocFile>) {
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

    /// A segment that has only the tar header of a file whose data follows.
    fn header(
        &mut self,
        path: &str,
        mode: u32,
        file: (u64, i64),
        data: SegmentId,
    ) -> Result<(), PublishError> {
        let (size, mtime) = file;
        let mut member = git_member(self.kind, path.as_bytes(), mode)?;
        member.mtime = mtime;
        let mut members = MemberWriter::begin(self.sink)?;
        members.file_elsewhere(member, size, data)?;
        let header = members.finish(self.sink)?;
        self.place(Role::Header, &header, None);
        Ok(())
    }

    fn git_file(
        &mut self,
        role: Role,
        path: &str,
        data: &PublishedFile,
        mtime: i64,
    ) -> Result<(), PublishError> {
        self.header(path, 0o444, (data.size, mtime), data.segment.id)?;
        let path = GitPath::parse(path.as_bytes())?;
        self.place(
            role,
            data,
            Some(TocFile {
                path,
                size: data.size,
                mtime,
            }),
        );
        Ok(())
    }

    fn pack_file(
        &mut self,
        role: Role,
        data: &PublishedFile,
        mtime: i64,
    ) -> Result<(), PublishError> {
        self.git_file(role, &format!("objects/pack/{}", data.name), data, mtime)
    }

    fn index(&mut self, parts: &Parts<'_>, checkout: &Checkout) -> Result<(), PublishError> {
        let runs = &checkout.runs;
        let header = index::header(runs.iter().map(|run| run.reuse.files).sum());
        let tree = checkout.tree_extension.as_deref();
        let mut trailer = index::trailer(tree, &parts.git_files.refs.commit);
        let trailer_len = trailer.len() as u64;
        let entries_len: u64 = runs.iter().map(|run| run.reuse.index_part.size).sum();
        let size = header.len() as u64 + entries_len + trailer_len;
        trailer.resize(trailer.len() + cachewfs_format::padding_len(size), 0);
        let header = self
            .sink
            .store_bytes(&header, header.len() as u64, Vec::new())?;
        let trailer = self.sink.store_bytes(&trailer, trailer_len, Vec::new())?;

        self.header(
            "index",
            0o644,
            (size, times::GIT_DIRECTORY),
            header.segment.id,
        )?;
        self.index_part(Role::IndexHeader, &header)?;
        for run in runs {
            self.index_part(Role::IndexPart, &run.reuse.index_part)?;
        }
        self.index_part(Role::IndexTrailer, &trailer)
    }

    fn index_part(&mut self, role: Role, part: &PublishedFile) -> Result<(), PublishError> {
        let (path, mtime) = (GitPath::parse(b"index")?, times::GIT_DIRECTORY);
        self.place(
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

    fn run(&mut self, run: &CheckoutRun) {
        self.place(Role::WorkTree, &run.reuse.work_tree, None);
        if let (Some(data), Some(path)) = (&run.reuse.large_file, &run.large_file) {
            let file = TocFile {
                path: path.clone(),
                size: data.size,
                mtime: times::WORK_TREE,
            };
            self.place(Role::LargeFile, data, Some(file));
        }
    }

    fn finish(self, parts: &Parts<'_>, hot_segments: usize) -> Result<ArchiveLayout, PublishError> {
        let Self {
            kind,
            sink,
            segments,
            mut frames,
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
            repo: parts.repo.clone(),
            commit: parts.git_files.refs.commit,
            refs_digest: parts.git_files.refs.digest(),
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
        let id = SegmentId(cachewfs_format::Digest::of(&tail));
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
