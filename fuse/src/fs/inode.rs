//! The table of the inodes that the kernel knows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cachewfs_format::inode_of;
use parking_lot::Mutex;

use super::{Area, Node};
use crate::error::FsError;

/// The number of an inode.
pub(crate) type Ino = u64;

/// The root of the mount.
pub(super) const ROOT_INO: Ino = 1;

/// Returns the number of the inode with an identity: a digest of the four parts.
///
/// So the same file has the same number in each process and after each restart.
pub(crate) fn ino_of(tag: &[u8], repo: &str, path: &[u8], content: &[u8]) -> Ino {
    if tag == b"names" && path.is_empty() {
        return ROOT_INO;
    }
    inode_of(&[tag, repo.as_bytes(), path, content])
}

/// The node of each inode that the kernel knows, with the kernel's count of lookups.
#[derive(Debug, Default)]
pub(super) struct InodeTable(Mutex<HashMap<Ino, Inode>>);

#[derive(Debug)]
struct Inode {
    node: Node,
    lookups: u64,
}

/// The changes of a table.
#[derive(Debug)]
pub(super) struct InodeChanges {
    /// The inodes that were not there, each with its lookups.
    pub(super) new: Vec<(Ino, u64, Node)>,
    /// The inodes that had other lookups. A count of 0 means that the kernel has forgotten it.
    pub(super) recounted: Vec<(Ino, u64)>,
}

impl InodeTable {
    /// Returns the node of an inode.
    pub(super) fn get(&self, ino: Ino) -> Result<Node, FsError> {
        if ino == ROOT_INO {
            return Ok(Node::Names {
                area: Area::Root,
                prefix: String::new(),
            });
        }
        let inodes = self.0.lock();
        let inode = inodes.get(&ino).ok_or(FsError::UnknownInode { ino })?;
        Ok(inode.node.clone())
    }

    /// Records that the kernel learns of an inode, and counts a lookup.
    pub(super) fn remember(&self, ino: Ino, node: Node) {
        if ino == ROOT_INO {
            return;
        }
        let mut inodes = self.0.lock();
        match inodes.entry(ino) {
            Entry::Occupied(mut known) => {
                known.get_mut().lookups += 1;
                // The newer node has the same identity, but perhaps the location in a newer
                // archive.
                known.get_mut().node = node;
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Inode { node, lookups: 1 });
            }
        }
    }

    /// Returns the changes since the table had the inodes and lookups in `sent`.
    pub(super) fn changes_since(&self, sent: &HashMap<Ino, u64>) -> InodeChanges {
        let inodes = self.0.lock();
        let (mut new, mut recounted) = (Vec::new(), Vec::new());
        for (&ino, inode) in inodes.iter() {
            match sent.get(&ino) {
                None => new.push((ino, inode.lookups, inode.node.clone())),
                Some(&lookups) if lookups != inode.lookups => recounted.push((ino, inode.lookups)),
                Some(_) => {}
            }
        }
        let forgotten = sent.keys().filter(|ino| !inodes.contains_key(ino));
        recounted.extend(forgotten.map(|&ino| (ino, 0)));
        InodeChanges { new, recounted }
    }

    /// Takes over inodes with the lookups that another process counted.
    pub(super) fn restore(&self, changes: InodeChanges) {
        let mut inodes = self.0.lock();
        for (ino, lookups) in changes.recounted {
            if lookups == 0 {
                inodes.remove(&ino);
            } else if let Some(inode) = inodes.get_mut(&ino) {
                inode.lookups = lookups;
            }
        }
        let new = changes.new.into_iter();
        inodes.extend(new.map(|(ino, lookups, node)| (ino, Inode { node, lookups })));
    }

    /// Returns the number of inodes.
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Adds inodes that the kernel may know. One lookup is counted for each: the kernel forgets all
    /// lookups of an inode at once.
    pub(super) fn assume(&self, nodes: impl IntoIterator<Item = Node>) {
        let mut inodes = self.0.lock();
        for node in nodes {
            let ino = node.ino();
            inodes.entry(ino).or_insert(Inode { node, lookups: 1 });
        }
    }

    /// Records that the kernel has forgotten `count` lookups of an inode. Removes it with the last.
    pub(super) fn forget(&self, ino: Ino, count: u64) {
        let mut inodes = self.0.lock();
        if let Entry::Occupied(mut known) = inodes.entry(ino) {
            known.get_mut().lookups = known.get().lookups.saturating_sub(count);
            if known.get().lookups == 0 {
                known.remove();
            }
        }
    }
}
