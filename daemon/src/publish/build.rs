//! Building the archives of a snapshot, all of them at once.
//!
//! Segments are written in the order of the archive (`docs/format.md`, section 6), so that a client
//! can download a first snapshot while it is built:
//!
//! ```text
//! refs, commit-graph, indexes of packs, tip and increments, work tree, all other packs, end
//! └──────────────────────── the hot front ────────────────────────┘
//! ```
//!
//! Nothing is placed before all packs are made: the refs segment has a `.keep` file for each pack,
//! and the indexes come before the packs. After that, each segment is placed as soon as it is
//! written.

use std::collections::{BTreeMap, HashMap};

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Manifest, PackKind, PublishedFile, PublishedPack, ReusableRun,
    Role, end_of_archive,
};
use tracing::warn;

use super::assemble::{ArchiveWriter, pack_mtimes};
use super::checkout::check_out;
use super::commit_graph::{CHAIN_DIRECTORY, GraphScope, write_commit_graph};
use super::git_files::GitFiles;
use super::increment::{PackPlan, increment};
use super::input::BuildInput;
use super::job::PublishJob;
use super::layout::full_layout;
use super::pack::NewPack;
use super::segments::{INDEX_CHUNK_LEN, SegmentSink};
use super::{PublishError, fixed_times};
use crate::base::chain;
use crate::metrics::{Phase, PhaseTimer};

/// At most this many bytes of a notice are published, because it becomes an HTTP header.
const MAX_NOTICE_LEN: usize = 600;

/// The result of a build, as the manifest has it.
#[derive(Debug)]
pub(super) struct BuildOutput {
    pub(super) archives: BTreeMap<ArchiveKind, ArchiveLayout>,
    pub(super) packs: Vec<PublishedPack>,
    pub(super) commit_graphs: Vec<PublishedFile>,
    pub(super) runs: Vec<ReusableRun>,
    /// A sentence that names the files which the work tree lacks, if it lacks any.
    pub(super) notice: Option<String>,
}

/// Builds all archives of a snapshot.
pub(super) fn build(
    job: &PublishJob<'_>,
    sink: &mut SegmentSink,
    input: &BuildInput<'_>,
) -> Result<BuildOutput, PublishError> {
    let mut timer = PhaseTimer::start(job.metrics, Phase::Pack);
    let (packs, scope) = plan_packs(job, input)?;
    for pack in &packs {
        timer.wrote(pack.new_len()?);
    }
    timer.enter(Phase::Index);
    let commit_graphs = store_commit_graphs(job, sink, (input.previous, scope))?;
    let pack_names: Vec<_> = packs.iter().map(Pack::name).collect();
    let git_files = GitFiles {
        refs: input.refs,
        upstream_url: input.upstream.url(),
        namespaces: &job.config.mirrors.namespaces,
        commit_graphs: &commit_graphs,
        packs: &pack_names,
    };
    let mut archives: Vec<_> = [ArchiveKind::Mirror, ArchiveKind::Checkout]
        .into_iter()
        .map(|kind| ArchiveWriter::new(kind, input.feed))
        .collect();
    for archive in &mut archives {
        let packed_refs = input.refs.packed_refs(archive.kind());
        let small = git_files.store(sink, archive.kind(), &packed_refs)?;
        archive.place(sink, Role::Refs, &small, None);
        archive.packed_refs(sink, &packed_refs)?;
        // The format defines this order: newest link first.
        for link in commit_graphs.iter().rev() {
            let path = format!("{CHAIN_DIRECTORY}/{}", link.name);
            archive.git_file(
                sink,
                Role::CommitGraph,
                (&path, link, fixed_times::GIT_DIRECTORY),
            )?;
        }
    }
    let mut packs = PackWriter::begin(sink, packs, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Assemble);
    packs.place(sink, PackKind::is_hot, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Checkout);
    let (runs, notice) = place_checkout(job, sink, input, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Assemble);
    // Every reader needs the segments so far: refs, indexes, HEAD's objects and the work tree. The
    // packs that follow are read only for history.
    for archive in &mut archives {
        archive.end_hot_front();
    }
    packs.place(sink, |kind| !kind.is_hot(), &mut archives)?;
    let end = sink.store_bytes(&end_of_archive(), 0, Vec::new())?;
    let mut layouts = BTreeMap::new();
    for mut archive in archives {
        archive.place(sink, Role::End, &end, None);
        let kind = archive.kind();
        let state = (input.refs.commit, input.refs.digest());
        layouts.insert(kind, archive.finish(sink, input.repo, state)?);
    }
    timer.wrote(sink.take_written());
    Ok(BuildOutput {
        archives: layouts,
        packs: packs.finish(),
        commit_graphs,
        runs,
        notice,
    })
}

/// Writes the commit-graph and stores the links that `previous` lacks. Returns all links, oldest
/// first.
fn store_commit_graphs(
    job: &PublishJob<'_>,
    sink: &mut SegmentSink,
    (previous, scope): (Option<&Manifest>, GraphScope),
) -> Result<Vec<PublishedFile>, PublishError> {
    let known: HashMap<&str, &PublishedFile> = previous
        .iter()
        .flat_map(|previous| &previous.commit_graphs)
        .map(|link| (link.name.as_str(), link))
        .collect();
    let mut commit_graphs = Vec::new();
    for path in write_commit_graph(job, scope)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        commit_graphs.push(match known.get(&*name) {
            Some(&link) => link.clone(),
            None => sink.store_file(&path, INDEX_CHUNK_LEN)?,
        });
    }
    Ok(commit_graphs)
}

/// Places index and work tree in the checkout archive.
///
/// If git refuses to check out the tree of HEAD, the checkout archive is dropped and the history is
/// published alone. Returns the runs, and a notice if the work tree lacks anything.
fn place_checkout(
    job: &PublishJob<'_>,
    sink: &mut SegmentSink,
    input: &BuildInput<'_>,
    archives: &mut Vec<ArchiveWriter<'_>>,
) -> Result<(Vec<ReusableRun>, Option<String>), PublishError> {
    let repo = input.repo;
    if !input.refs.has_commit() {
        archives.retain(|archive| archive.kind() != ArchiveKind::Checkout);
        let notice = "There is no work tree: HEAD names a branch that does not exist";
        return Ok((input.previous_runs(), Some(notice.to_owned())));
    }
    let is_checkout = |archive: &ArchiveWriter<'_>| archive.kind() == ArchiveKind::Checkout;
    let mut checkout = match check_out(job, sink, input) {
        Err(error) if error.is_refused_tree() => {
            let notice = to_notice(&format!("There is no work tree: {}", chain(&error)));
            warn!(%repo, "HEAD of {repo} can't be checked out. {notice}");
            archives.retain(|archive| !is_checkout(archive));
            return Ok((input.previous_runs(), Some(notice)));
        }
        checkout => checkout?,
    };
    if let Some(notice) = &checkout.notice {
        warn!(%repo, "Some files of HEAD of {repo} can't be checked out. {notice}");
    }
    for archive in archives.iter_mut().filter(|archive| is_checkout(archive)) {
        archive.checkout(sink, &checkout)?;
    }
    let notice = checkout.notice.take().as_deref().map(to_notice);
    Ok((checkout.into_reusable(), notice))
}

/// Returns a notice that fits into an HTTP header: one line of printable ASCII, cut if it is long.
fn to_notice(text: &str) -> String {
    let printable = text.chars().map(|letter| match letter {
        ' '..='~' => letter,
        letter if letter.is_whitespace() => ' ',
        _ => '?',
    });
    printable.take(MAX_NOTICE_LEN).collect()
}

/// A pack of the snapshot.
#[derive(Debug)]
enum Pack {
    /// A pack of the previous snapshot, which is in the store.
    Stored(Box<PublishedPack>),
    New(NewPack),
}

impl Pack {
    fn kind(&self) -> PackKind {
        match self {
            Self::Stored(pack) => pack.kind,
            Self::New(pack) => pack.kind,
        }
    }

    /// Returns the name of the pack's file.
    fn name(&self) -> String {
        match self {
            Self::Stored(pack) => pack.pack.name.clone(),
            Self::New(pack) => pack.name(),
        }
    }

    /// Returns the length of the pack in bytes if it was made for this snapshot, else 0.
    fn new_len(&self) -> Result<u64, PublishError> {
        match self {
            Self::Stored(_) => Ok(0),
            Self::New(pack) => pack.len(),
        }
    }
}

/// Makes the new packs of the snapshot. Returns all its packs, in the order in which git searches
/// them, and which commits the commit-graph must be written for.
fn plan_packs(
    job: &PublishJob<'_>,
    input: &BuildInput<'_>,
) -> Result<(Vec<Pack>, GraphScope), PublishError> {
    let plan = match input.previous {
        Some(previous) => increment(job, input.store, previous)?,
        None => PackPlan::Relayout,
    };
    let previous = input.previous.iter().flat_map(|previous| &previous.packs);
    let mut packs: Vec<_> = previous
        .map(|pack| Pack::Stored(Box::new(pack.clone())))
        .collect();
    match plan {
        PackPlan::Keep => Ok((packs, GraphScope::New)),
        PackPlan::Add { pack, replaces } => {
            // Increments are newest first. The new one takes the place of the newest `replaces`; if
            // there are none, it goes between the packs that git searches before and after it.
            let is_increment = |pack: &Pack| pack.kind() == PackKind::Increment;
            let first = packs.iter().position(is_increment).unwrap_or_else(|| {
                let is_before = |pack: &&Pack| {
                    fixed_times::of_pack(pack.kind(), 0)
                        > fixed_times::of_pack(PackKind::Increment, 0)
                };
                packs.iter().filter(is_before).count()
            });
            drop(packs.splice(first..first + replaces, [Pack::New(pack)]));
            Ok((packs, GraphScope::New))
        }
        PackPlan::Relayout => {
            let packs = full_layout(job, input.refs.has_commit())?
                .into_iter()
                .map(Pack::New)
                .collect();
            Ok((packs, GraphScope::All))
        }
    }
}

/// Stores packs and places them in the archives. All indexes come before the first pack.
struct PackWriter {
    /// All packs. A pack that is not placed yet has `None` as its data.
    packs: Vec<WrittenPack>,
}

struct WrittenPack {
    pack: Pack,
    mtime: i64,
    index: PublishedFile,
    reverse_index: PublishedFile,
    data: Option<PublishedFile>,
}

impl PackWriter {
    fn begin(
        sink: &mut SegmentSink,
        packs: Vec<Pack>,
        archives: &mut [ArchiveWriter<'_>],
    ) -> Result<Self, PublishError> {
        let kinds: Vec<_> = packs.iter().map(Pack::kind).collect();
        let mut written = Vec::new();
        for (pack, mtime) in packs.into_iter().zip(pack_mtimes(&kinds)) {
            let (index, reverse_index) = match &pack {
                Pack::Stored(pack) => (pack.index.clone(), pack.reverse_index.clone()),
                Pack::New(pack) => pack.store_indexes(sink)?,
            };
            written.push(WrittenPack {
                pack,
                mtime,
                index,
                reverse_index,
                data: None,
            });
        }
        for archive in archives {
            for pack in &written {
                archive.pack_file(sink, Role::PackIndex, (&pack.index, pack.mtime))?;
            }
            for pack in &written {
                let file = (&pack.reverse_index, pack.mtime);
                archive.pack_file(sink, Role::PackReverseIndex, file)?;
            }
        }
        Ok(Self { packs: written })
    }

    /// Stores and places the packs of the wanted kinds.
    fn place(
        &mut self,
        sink: &mut SegmentSink,
        is_wanted: impl Fn(PackKind) -> bool,
        archives: &mut [ArchiveWriter<'_>],
    ) -> Result<(), PublishError> {
        for each in &mut self.packs {
            let kind = each.pack.kind();
            if !is_wanted(kind) {
                continue;
            }
            let data = match &each.pack {
                Pack::Stored(pack) => pack.pack.clone(),
                Pack::New(pack) => pack.store_data(sink)?,
            };
            for archive in &mut *archives {
                archive.pack_file(sink, Role::Pack(kind), (&data, each.mtime))?;
            }
            each.data = Some(data);
        }
        Ok(())
    }

    /// Returns the packs that were placed.
    fn finish(self) -> Vec<PublishedPack> {
        let publish = |each: WrittenPack| {
            Some(PublishedPack {
                kind: each.pack.kind(),
                pack: each.data?,
                index: each.index,
                reverse_index: each.reverse_index,
            })
        };
        self.packs.into_iter().filter_map(publish).collect()
    }
}
