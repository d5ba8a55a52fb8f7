//! Building the archives of a snapshot: all at once, each segment in the order of the archive.
//!
//! Indexes come before packs, so nothing but the refs can be placed before all packs are made. After
//! that each segment is placed as soon as it is written.

use std::collections::{BTreeMap, HashMap};

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Manifest, PackKind, PublishedFile, PublishedPack, RepoName,
    ReusableRun, Role, end_of_archive,
};
use tracing::warn;

use super::assemble::{ArchiveWriter, pack_mtimes, pack_role};
use super::checkout::check_out;
use super::commit_graph::{CHAIN_DIRECTORY, Extent, write_commit_graph};
use super::feed::BuildFeed;
use super::git_files::GitFiles;
use super::increment::{Plan, increment};
use super::job::Job;
use super::layout::full_layout;
use super::pack::NewPack;
use super::refs::Refs;
use super::segments::{INDEX_CHUNK_LEN, SegmentSink};
use super::{PublishError, times};
use crate::error_chain::chain;
use crate::metrics::{Phase, PhaseTimer};
use crate::mirror::Upstream;
use crate::store::Store;

/// The length of a notice, in bytes.
const MAX_NOTICE_LEN: usize = 600;

/// What is built.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) repo: &'a RepoName,
    pub(super) upstream: &'a Upstream,
    pub(super) refs: &'a Refs,
    /// What it builds on.
    pub(super) previous: Option<&'a Manifest>,
    pub(super) store: &'a Store,
    /// Who waits for its segments, if somebody may.
    pub(super) feed: Option<&'a BuildFeed>,
}

impl Snapshot<'_> {
    /// Returns the runs of the previous snapshot: one without a work tree keeps them for the next.
    fn earlier_runs(&self) -> Vec<ReusableRun> {
        let runs = self.previous.map(|previous| previous.runs.clone());
        runs.unwrap_or_default()
    }
}

/// What a manifest says of what was built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) archives: BTreeMap<ArchiveKind, ArchiveLayout>,
    pub(super) packs: Vec<PublishedPack>,
    pub(super) commit_graphs: Vec<PublishedFile>,
    pub(super) runs: Vec<ReusableRun>,
    /// A sentence about files that the work tree lacks.
    pub(super) notice: Option<String>,
}

/// Builds all archives of a snapshot.
pub(super) fn build(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    of: &Snapshot<'_>,
) -> Result<Built, PublishError> {
    let mut timer = PhaseTimer::start(job.metrics, Phase::Pack);
    let (packs, extent) = plan_packs(job, of)?;
    for pack in &packs {
        timer.wrote(pack.new_len()?);
    }
    timer.enter(Phase::Index);
    let commit_graphs = store_commit_graphs(job, sink, (of.previous, extent))?;
    let pack_names: Vec<_> = packs.iter().map(Pack::name).collect();
    let git_files = GitFiles {
        refs: of.refs,
        upstream_url: of.upstream.url(),
        namespaces: &job.config.namespaces,
        commit_graphs: &commit_graphs,
        packs: &pack_names,
    };
    let mut archives: Vec<_> = [ArchiveKind::Mirror, ArchiveKind::Checkout]
        .into_iter()
        .map(|kind| ArchiveWriter::new(kind, of.feed))
        .collect();
    for archive in &mut archives {
        let packed_refs = of.refs.packed_refs(archive.kind());
        let small = git_files.store(sink, archive.kind(), &packed_refs)?;
        archive.place(sink, Role::Refs, &small, None);
        archive.packed_refs(sink, &packed_refs)?;
        for link in commit_graphs.iter().rev() {
            let path = format!("{CHAIN_DIRECTORY}/{}", link.name);
            archive.git_file(sink, Role::CommitGraph, (&path, link, times::GIT_DIRECTORY))?;
        }
    }
    let mut packs = PackWriter::begin(sink, packs, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Assemble);
    packs.place(sink, is_hot, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Checkout);
    let (runs, notice) = place_checkout(job, sink, of, &mut archives)?;
    timer.wrote(sink.take_written());
    timer.enter(Phase::Assemble);
    for archive in &mut archives {
        archive.end_hot_front();
    }
    packs.place(sink, |kind| !is_hot(kind), &mut archives)?;
    let end = sink.store_bytes(&end_of_archive(), 0, Vec::new())?;
    let mut layouts = BTreeMap::new();
    for mut archive in archives {
        archive.place(sink, Role::End, &end, None);
        let kind = archive.kind();
        let state = (of.refs.commit, of.refs.digest());
        layouts.insert(kind, archive.finish(sink, of.repo, state)?);
    }
    timer.wrote(sink.take_written());
    Ok(Built {
        archives: layouts,
        packs: packs.finish(),
        commit_graphs,
        runs,
        notice,
    })
}

/// Writes the commit-graph, and stores the links that `previous` doesn't have; oldest first.
fn store_commit_graphs(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    (previous, extent): (Option<&Manifest>, Extent),
) -> Result<Vec<PublishedFile>, PublishError> {
    let known: HashMap<&str, &PublishedFile> = previous
        .iter()
        .flat_map(|previous| &previous.commit_graphs)
        .map(|link| (link.name.as_str(), link))
        .collect();
    let mut commit_graphs = Vec::new();
    for path in write_commit_graph(job, extent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        commit_graphs.push(match known.get(&*name) {
            Some(&link) => link.clone(),
            None => sink.store_file(&path, INDEX_CHUNK_LEN)?,
        });
    }
    Ok(commit_graphs)
}

/// Places index and work tree. If the tree of HEAD can't be checked out, that archive is dropped: the
/// history is published in any case. Returns the runs, and a notice if
/// the work tree lacks something.
fn place_checkout(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    of: &Snapshot<'_>,
    archives: &mut Vec<ArchiveWriter<'_>>,
) -> Result<(Vec<ReusableRun>, Option<String>), PublishError> {
    let repo = of.repo;
    if !of.refs.has_commit() {
        archives.retain(|archive| archive.kind() != ArchiveKind::Checkout);
        let notice = "There is no work tree: HEAD names a branch that does not exist";
        return Ok((of.earlier_runs(), Some(notice.to_owned())));
    }
    let is_checkout = |archive: &ArchiveWriter<'_>| archive.kind() == ArchiveKind::Checkout;
    let mut checkout = match check_out(job, sink, of) {
        Err(error) if error.is_refused_tree() => {
            let notice = to_notice(&format!("There is no work tree: {}", chain(&error)));
            warn!(%repo, "HEAD of {repo} can't be checked out. {notice}");
            archives.retain(|archive| !is_checkout(archive));
            return Ok((of.earlier_runs(), Some(notice)));
        }
        checkout => checkout?,
    };
    if let Some(notice) = &checkout.notice {
        warn!(%repo, "A part of HEAD of {repo} can't be checked out. {notice}");
    }
    for archive in archives.iter_mut().filter(|archive| is_checkout(archive)) {
        archive.checkout(sink, &checkout)?;
    }
    let notice = checkout.notice.take().as_deref().map(to_notice);
    Ok((checkout.into_reusable(), notice))
}

/// Returns a notice that fits into a header: one line of printable ASCII, cut if it is long.
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
    /// In the store, from an earlier snapshot.
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

    /// Returns the name of the file of the pack.
    fn name(&self) -> String {
        match self {
            Self::Stored(pack) => pack.pack.name.clone(),
            Self::New(pack) => pack.name(),
        }
    }

    /// Length in bytes of what was made for this snapshot.
    fn new_len(&self) -> Result<u64, PublishError> {
        match self {
            Self::Stored(_) => Ok(0),
            Self::New(pack) => pack.len(),
        }
    }
}

/// Whether every reader wants a pack of this kind, so that it stands before the work tree.
fn is_hot(kind: PackKind) -> bool {
    match kind {
        PackKind::Tip | PackKind::Increment => true,
        PackKind::Recent | PackKind::Commits | PackKind::Trees | PackKind::History => false,
    }
}

/// The packs of the snapshot, in the order in which git searches them.
fn plan_packs(job: &Job<'_>, of: &Snapshot<'_>) -> Result<(Vec<Pack>, Extent), PublishError> {
    let plan = match of.previous {
        Some(previous) => increment(job, of.store, previous)?,
        None => Plan::Relayout,
    };
    let previous = of.previous.iter().flat_map(|previous| &previous.packs);
    let mut packs: Vec<_> = previous
        .map(|pack| Pack::Stored(Box::new(pack.clone())))
        .collect();
    match plan {
        Plan::Keep => Ok((packs, Extent::New)),
        Plan::Add { pack, replaces } => {
            let is_increment = |pack: &Pack| pack.kind() == PackKind::Increment;
            let first = packs.iter().position(is_increment).unwrap_or_else(|| {
                let is_before = |pack: &&Pack| {
                    times::of_pack(pack.kind(), 0) > times::of_pack(PackKind::Increment, 0)
                };
                packs.iter().filter(is_before).count()
            });
            drop(packs.splice(first..first + replaces, [Pack::New(pack)]));
            Ok((packs, Extent::New))
        }
        Plan::Relayout => {
            let packs = full_layout(job, of.refs.has_commit())?
                .into_iter()
                .map(Pack::New)
                .collect();
            Ok((packs, Extent::All))
        }
    }
}

/// Stores and places packs one after the other; their indexes come first.
struct PackWriter {
    /// Those that are not placed yet have `None` instead of their data.
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

    /// Stores and places all packs of some kinds.
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
                archive.pack_file(sink, pack_role(kind), (&data, each.mtime))?;
            }
            each.data = Some(data);
        }
        Ok(())
    }

    /// All packs that were placed.
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
