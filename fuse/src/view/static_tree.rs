//! A small tree of files that is completely in memory: the git directory, or the objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::segment::Segment;

/// The files and directories of a small tree. Adding a file adds the directories above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StaticTree {
    /// The nodes by path. Paths have no slash at either end; the root is the empty path.
    nodes: BTreeMap<Vec<u8>, StaticNode>,
}

/// A directory or a file in a small tree.
#[derive(Clone, Debug)]
pub(crate) enum StaticNode {
    /// A directory.
    Directory,
    /// A file.
    File(StaticFile),
}

/// A file in a small tree.
#[derive(Clone, Debug)]
pub(crate) struct StaticFile {
    pub content: FileContent,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) enum FileContent {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A segment that is this file.
    Segment(Arc<Segment>),
}

impl FileContent {
    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Segment(segment) => segment.len(),
        }
    }

    /// Returns the digest that tells the content from any other.
    pub(crate) fn digest(&self) -> [u8; 32] {
        match self {
            Self::Bytes(bytes) => *blake3::hash(bytes).as_bytes(),
            Self::Segment(segment) => *segment.record().id.0.as_bytes(),
        }
    }

    /// Returns whether both contents are known to have equal bytes.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Segment(one), Self::Segment(other)) => one.record().id == other.record().id,
            (Self::Bytes(_), Self::Segment(_)) | (Self::Segment(_), Self::Bytes(_)) => false,
        }
    }
}

impl StaticTree {
    /// Adds a directory, and all directories above it.
    pub(crate) fn add_directory(&mut self, path: &[u8]) {
        let mut end = path.len();
        loop {
            self.nodes
                .entry(path[..end].to_vec())
                .or_insert(StaticNode::Directory);
            match path[..end].iter().rposition(|&byte| byte == b'/') {
                Some(slash) => end = slash,
                None if end > 0 => end = 0,
                None => return,
            }
        }
    }

    /// Adds a file, and the directories above it.
    pub(crate) fn add_file(&mut self, path: &[u8], content: FileContent, mtime: i64) {
        let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        self.add_directory(&path[..parent]);
        self.nodes.insert(
            path.to_vec(),
            StaticNode::File(StaticFile { content, mtime }),
        );
    }

    /// Adds a file whose bytes are in memory.
    pub(crate) fn add_bytes(&mut self, path: &[u8], bytes: &[u8], mtime: i64) {
        self.add_file(path, FileContent::Bytes(bytes.into()), mtime);
    }

    /// Returns the node at `path`, or `None` if there is none.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&StaticNode> {
        self.nodes.get(path)
    }

    /// Returns all directories and files with their paths, sorted by path.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&[u8], &StaticNode)> {
        self.nodes
            .iter()
            .map(|(path, node)| (path.as_slice(), node))
    }

    /// Returns all files with their paths, sorted by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&[u8], &StaticFile)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            StaticNode::File(file) => Some((path.as_slice(), file)),
            StaticNode::Directory => None,
        })
    }

    /// Returns the names in the directory at `path`, sorted by path, each with its node.
    pub(crate) fn children(&self, path: &[u8]) -> Vec<(&[u8], &StaticNode)> {
        self.nodes
            .iter()
            .filter_map(|(child, node)| {
                let below = if path.is_empty() {
                    child.as_slice()
                } else {
                    child.strip_prefix(path)?.strip_prefix(b"/")?
                };
                let is_child = !below.is_empty() && !below.contains(&b'/');
                is_child.then_some((below, node))
            })
            .collect()
    }

    /// Returns the paths that differ between this tree and `other`: added, removed, or with other
    /// content.
    pub(crate) fn changed_paths<'a>(&'a self, other: &'a Self) -> Vec<&'a [u8]> {
        let differs = |path: &Vec<u8>, node: &StaticNode, tree: &Self| match (node, tree.get(path))
        {
            (StaticNode::Directory, Some(StaticNode::Directory)) => false,
            (StaticNode::File(one), Some(StaticNode::File(other))) => {
                !one.content.is_same(&other.content)
            }
            _ => true,
        };
        let added = self
            .nodes
            .iter()
            .filter(|(path, node)| differs(path, node, other));
        let removed = other
            .nodes
            .iter()
            .filter(|(path, _)| self.get(path).is_none());
        added
            .chain(removed)
            .map(|(path, _)| path.as_slice())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> StaticTree {
        let mut tree = StaticTree::default();
        tree.add_directory(b"");
        for (path, bytes) in files {
            tree.add_bytes(path.as_bytes(), bytes.as_bytes(), 0);
        }
        tree
    }

    #[test]
    fn lists_the_names_in_a_directory() {
        let tree = tree(&[
            ("HEAD", "x"),
            ("objects/pack/p", ""),
            ("objects/info/a", ""),
        ]);

        let names = |path: &[u8]| -> Vec<String> {
            let children = tree.children(path);
            children
                .iter()
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                .collect()
        };

        assert_eq!(names(b""), ["HEAD", "objects"]);
        assert_eq!(names(b"objects"), ["info", "pack"]);
        assert!(names(b"obj").is_empty());
    }

    #[test]
    fn lists_the_paths_that_changed() {
        let (old, new) = (
            tree(&[("a", "1"), ("b", "1")]),
            tree(&[("a", "2"), ("c/d", "1")]),
        );

        assert_eq!(new.changed_paths(&old), [&b"a"[..], b"c", b"c/d", b"b"]);
    }
}
