//! Finds commits and their parents in the commit-graph chain (`gitformat-commit-graph(5)`).
//!
//! A chain has one or more files. A *position* numbers the commits of the whole chain, from the
//! oldest file on. Parents are stored as positions.

use std::sync::Arc;

use futures_util::future::{join, join_all};

use super::around::{fetch_around, number_at, read};
use super::sorted_ids::{FANOUT_LEN, SortedIds};
use crate::segment::{ReadError, Segment};

const HEADER_LEN: usize = 8;
/// Bytes of an entry in the list of chunks: an id and an offset.
const CHUNK_ENTRY_LEN: usize = 12;
/// Bytes to read from the start of a file. Header, list of chunks and fan-out table take less.
const FRONT_LEN: u64 = 4096;
/// Generations of ancestors that `git log -1` reads. It parses the parents of the commit that it
/// shows, and looks up the ids of their parents.
const ANCESTOR_GENERATIONS: usize = 2;
/// The value that means "no parent". Larger values, with the highest bit set, point to a list of
/// more than two parents.
const NO_PARENT: u64 = 0x7000_0000;

/// One file of the chain.
#[derive(Debug)]
pub(super) struct CommitGraph<'a> {
    segment: &'a Arc<Segment>,
    ids: SortedIds<'a>,
    fanout: Vec<u8>,
    /// The number of commits in this file.
    count: u64,
    /// Offsets of chunks in bytes: commit data, generation data and Bloom filters.
    commits: u64,
    generations: Option<u64>,
    filters: Option<u64>,
}

/// Fetches the entries of the commit `oid` and of its ancestors. `links` are the files of the
/// chain, newest first.
pub(super) async fn prefetch(links: impl Iterator<Item = &Arc<Segment>>, oid: &[u8]) {
    let opened = join_all(links.map(|link| CommitGraph::open(link, oid.len()))).await;
    let graphs: Vec<CommitGraph<'_>> = opened.into_iter().flatten().flatten().collect();
    let graphs = graphs.as_slice();
    let mut newest_to_oldest = graphs.iter();
    // Positions start with the oldest file, so those of a newer file follow all commits of the
    // older.
    let found = loop {
        let Some(graph) = newest_to_oldest.next() else {
            return;
        };
        if let Ok(Some(position)) = graph.ids.find(&graph.fanout, oid).await {
            let older: u64 = newest_to_oldest.map(|graph| graph.count).sum();
            break older + position;
        }
    };
    let mut positions = vec![found];
    for _ in 0..ANCESTOR_GENERATIONS {
        let parents = positions
            .iter()
            .filter_map(|&position| CommitGraph::of(graphs, position))
            .map(|(graph, position)| async move {
                let at = graph.ids.id_at(position);
                let id = fetch_around(graph.segment, at..at);
                join(id, graph.parents(position))
                    .await
                    .1
                    .unwrap_or_default()
            });
        positions = join_all(parents).await.concat();
    }
    // git looks up the ids of the last generation, and doesn't parse its commits.
    let ids = positions
        .iter()
        .filter_map(|&position| CommitGraph::of(graphs, position))
        .map(|(graph, position)| (graph.segment, graph.ids.id_at(position)))
        .map(|(segment, at)| fetch_around(segment, at..at));
    join_all(ids).await;
}

impl<'a> CommitGraph<'a> {
    /// Opens a file of the chain. Returns `None` if it has another format.
    pub(super) async fn open(
        segment: &'a Arc<Segment>,
        id_len: usize,
    ) -> Result<Option<Self>, ReadError> {
        segment.fetch_front().await?;
        let front = read(segment, 0..FRONT_LEN.min(segment.len())).await?;
        let Some(graph) = Self::parse(segment, id_len, &front) else {
            return Ok(None);
        };
        // git also reads the checksum at the end, and the start of the Bloom filters.
        let end = segment.len().saturating_sub(graph.ids.id_len);
        let filters = graph.filters.unwrap_or(0);
        join(
            fetch_around(segment, end..segment.len()),
            fetch_around(segment, filters..filters),
        )
        .await;
        Ok(Some(graph))
    }

    fn parse(segment: &'a Arc<Segment>, id_len: usize, front: &[u8]) -> Option<Self> {
        if !front.starts_with(b"CGPH\x01") {
            return None;
        }
        let chunks = usize::from(*front.get(6)?);
        let list = front.get(HEADER_LEN..)?.chunks_exact(CHUNK_ENTRY_LEN);
        let offset_of = |id: &[u8; 4]| {
            let mut list = list.clone().take(chunks);
            let entry = list.find(|entry| entry.starts_with(id))?;
            entry
                .get(4..)?
                .first_chunk()
                .map(|&at| u64::from_be_bytes(at))
        };
        let fanout_at = usize::try_from(offset_of(b"OIDF")?).ok()?;
        let fanout = front.get(fanout_at..)?.get(..FANOUT_LEN)?.to_vec();
        Some(Self {
            segment,
            ids: SortedIds {
                segment,
                at: offset_of(b"OIDL")?,
                id_len: id_len as u64,
            },
            count: number_at(&fanout, FANOUT_LEN - 4)?,
            fanout,
            commits: offset_of(b"CDAT")?,
            generations: offset_of(b"GDA2"),
            filters: offset_of(b"BDAT"),
        })
    }

    /// Returns the file that has the commit at `position` of the chain, and its index in that file.
    ///
    /// `graphs` are the files of the chain, newest first.
    fn of(graphs: &[Self], position: u64) -> Option<(&Self, u64)> {
        let mut first = 0;
        graphs.iter().rev().find_map(|graph| {
            let own = position.checked_sub(first)?;
            first += graph.count;
            (own < graph.count).then_some((graph, own))
        })
    }

    /// Returns the positions in the chain of the parents of the commit at index `position` of this
    /// file.
    async fn parents(&self, position: u64) -> Result<Vec<u64>, ReadError> {
        // An entry has the id of a tree, two parents, and 8 bytes of generation and time.
        let entry_len = self.ids.id_len + 16;
        let entry_at = self.commits.saturating_add(position * entry_len);
        let generation = async {
            if let Some(generations) = self.generations {
                let at = generations.saturating_add(position * 4);
                fetch_around(self.segment, at..at).await;
            }
        };
        let entry = read(self.segment, entry_at..entry_at.saturating_add(entry_len));
        let (entry, ()) = join(entry, generation).await;
        let entry = entry?;
        let id_len = usize::try_from(self.ids.id_len).unwrap_or(0);
        let parents = [number_at(&entry, id_len), number_at(&entry, id_len + 4)];
        let is_one = |&position: &u64| position < NO_PARENT;
        Ok(parents.into_iter().flatten().filter(is_one).collect())
    }
}

#[cfg(test)]
impl CommitGraph<'_> {
    /// Returns the positions of the parents of the commit `oid`, which is in this file.
    pub(super) async fn parents_of(&self, oid: &[u8]) -> Vec<u64> {
        let position = self.ids.find(&self.fanout, oid).await;
        self.parents(position.unwrap().unwrap()).await.unwrap()
    }

    /// Returns the id of the commit at index `position` of this file.
    pub(super) async fn id(&self, position: u64) -> Vec<u8> {
        let at = self.ids.id_at(position);
        read(self.segment, at..at + self.ids.id_len).await.unwrap()
    }
}
