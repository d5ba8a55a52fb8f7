//! Finds out what the kernel may know of a mount whose process was killed.

use std::collections::HashMap;
use std::sync::Arc;

use cachewfs_base::seconds_since_epoch;
use cachewfs_format::SegmentId;

use super::lookup::{INDEX, top_of, tree_file, work_tree_node};
use super::open::OpenFile;
use super::{Area, Fs, Node, Tree};
use crate::passthrough::Backing;
use crate::recovery::OpenSegment;
use crate::repository::Repository;
use crate::segment::Segment;
use crate::traffic::Purpose;
use crate::view::{FileContent, StaticFile};

impl Fs {
    /// Returns the number of inodes that the kernel knows.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.count()
    }

    /// Adds the inodes of everything that the mount shows: the kernel may know each.
    pub(crate) async fn assume_inodes(&self) {
        self.inodes.assume([Node::Names {
            area: Area::Objects,
            prefix: String::new(),
        }]);
        for name in self.repositories.remembered_names() {
            let above = |name| Some(str::rsplit_once(name, '/')?.0);
            let prefixes = std::iter::successors(above(&name), |name| above(name));
            for area in [Area::Root, Area::Objects] {
                let directories = prefixes.clone().map(|prefix| Node::Names {
                    area,
                    prefix: prefix.to_owned(),
                });
                self.inodes.assume(directories);
                self.inodes.assume([self.listed(area, name.clone())]);
            }
        }
        for repository in self.repositories.resolved() {
            for area in [Area::Root, Area::Objects] {
                self.inodes.assume([top_of(area, Arc::clone(&repository))]);
            }
            let small = repository.small_nodes().into_iter();
            self.inodes.assume(small.map(|(_, _, node)| node));
            self.inodes.assume(work_tree_nodes(&repository).await);
        }
    }

    /// Takes over the open segments in the journal of another process, as far as they are among
    /// `known`.
    pub(crate) fn restore_open_segments(&self, opens: Vec<OpenSegment>, known: &[Arc<Segment>]) {
        let known: HashMap<SegmentId, &Arc<Segment>> = known
            .iter()
            .map(|segment| (segment.record().id, segment))
            .collect();
        let mut files = Vec::new();
        for open in opens {
            let Some(&segment) = known.get(&open.segment) else {
                continue;
            };
            let mut opens = segment.opens.lock();
            opens.count += 1;
            if let Some(id) = open.backing {
                opens.backing = Some(Backing::Detached(id));
            }
            if let Some(journal) = &self.journal {
                journal.note(&open);
            }
            files.push((open.handle, OpenFile::Segment(Arc::clone(segment))));
        }
        // Above all handles that an earlier process gave.
        let next = seconds_since_epoch() << 24;
        self.open_files.restore(next, files);
        self.open_directories.restore(next, Vec::new());
    }
}

/// Returns all nodes of the work tree that the kernel may know.
async fn work_tree_nodes(repository: &Arc<Repository>) -> Vec<Node> {
    let generation = repository.view().generation;
    if generation.is_index_cached() {
        // The killed process may have loaded it. An error means that it couldn't.
        generation.work_tree(Purpose::Background).await.ok();
    }
    if let Some(work_tree) = generation.loaded_work_tree() {
        let index = StaticFile {
            content: FileContent::Bytes(Arc::clone(work_tree.index())),
            mtime: work_tree.index_mtime(),
        };
        let index = tree_file(repository, Tree::Git, INDEX, index);
        let all = work_tree.nodes().into_iter();
        let all = all.map(|(path, node)| work_tree_node(repository, path, node));
        return all.chain([index]).collect();
    }
    // Names were found one by one.
    let mut nodes = Vec::new();
    for path in generation.searched() {
        if let Ok(Some(found)) = generation.find_in_work_tree(&path).await {
            nodes.push(work_tree_node(repository, path, found));
        }
    }
    nodes
}
