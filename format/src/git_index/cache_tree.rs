//! The tree extension of an index: the ids of all git trees, without which git would read every tree to
//! compare an index with a commit.

use std::ops::Range;

use super::writer::Entries;
use crate::GitHash;

/// At most this much more than a quarter of the index, in bytes. An extension of honest trees is much
/// shorter than that; git does without a longer one.
const MAX_EXTRA_LEN: usize = 1 << 20;
/// About what the record of a directory takes beside its name and its id: NUL, two numbers, newline.
const RECORD_LEN: usize = 8;

/// A directory of the index.
struct Directory {
    /// Its name, a range of bytes of the path of `entry`.
    name: Range<usize>,
    /// Its first entry.
    entry: usize,
    /// The number of entries below it.
    entries: usize,
    /// Numbers of its subdirectories.
    children: Vec<usize>,
    id: Vec<u8>,
}

/// A directory whose entries aren't all known yet.
struct OpenDirectory {
    number: usize,
    /// The content of its tree object as far as it is known.
    tree: Vec<u8>,
}

/// Returns the tree extension of an index, with signature and length. It is empty if the directories are
/// out of all proportion to the files.
pub(super) fn tree_extension(index: Entries<'_>) -> Vec<u8> {
    let max_len = (index.bytes.len() / 4).saturating_add(MAX_EXTRA_LEN);
    let Some(directories) = Directories::of(index, max_len) else {
        return Vec::new();
    };
    let payload = directories.encode(index);
    let len = u32::try_from(payload.len()).unwrap_or(0);
    [b"TREE", &len.to_be_bytes()[..], &payload].concat()
}

/// The directories of an index. The first one is its root.
struct Directories {
    all: Vec<Directory>,
    id_len: usize,
    /// The rest of the length that the extension may have.
    left: usize,
}

impl Directories {
    /// Finds the directories of an index, with their ids. Returns `None` if their extension would be
    /// longer than `max_len`.
    fn of(index: Entries<'_>, max_len: usize) -> Option<Self> {
        let mut directories = Self {
            all: Vec::new(),
            id_len: index.id_len,
            left: max_len,
        };
        let mut open = vec![directories.open(0, 0..0)?];
        let mut last: &[u8] = b"";
        for (number, entry) in index.iter().enumerate() {
            let path = entry.path;
            let common = common_directories(last, path);
            while open.len() > common.saturating_add(1) {
                directories.close(&mut open, index);
            }
            let mut start = path
                .split_inclusive(|&byte| byte == b'/')
                .take(common)
                .fold(0_usize, |end, part| end.saturating_add(part.len()));
            while let Some(len) = path.get(start..)?.iter().position(|&byte| byte == b'/') {
                let end = start.saturating_add(len);
                let directory = directories.open(number, start..end)?;
                let parent = directories.all.get_mut(open.last()?.number)?;
                parent.children.push(directory.number);
                open.push(directory);
                start = end.saturating_add(1);
            }
            let parent = open.last_mut()?;
            push(&mut parent.tree, entry.mode, (path.get(start..)?, entry.id));
            let parent = directories.all.get_mut(parent.number)?;
            parent.entries = parent.entries.saturating_add(1);
            last = path;
        }
        while !open.is_empty() {
            directories.close(&mut open, index);
        }
        Some(directories)
    }

    fn open(&mut self, entry: usize, name: Range<usize>) -> Option<OpenDirectory> {
        let len = RECORD_LEN
            .saturating_add(name.len())
            .saturating_add(self.id_len);
        self.left = self.left.checked_sub(len)?;
        let number = self.all.len();
        self.all.push(Directory {
            name,
            entry,
            entries: 0,
            children: Vec::new(),
            id: Vec::new(),
        });
        let tree = Vec::new();
        Some(OpenDirectory { number, tree })
    }

    /// Closes the innermost open directory: names its tree, which becomes an entry of the parent's.
    fn close(&mut self, open: &mut Vec<OpenDirectory>, index: Entries<'_>) {
        let Some(OpenDirectory { number, tree }) = open.pop() else {
            return;
        };
        let mut hash = GitHash::of_format(self.id_len);
        hash.update(format!("tree {}\0", tree.len()).as_bytes());
        hash.update(&tree);
        let Some(directory) = self.all.get_mut(number) else {
            return;
        };
        directory.id = hash.finish();
        let entries = directory.entries;
        if let Some(parent) = open.last_mut() {
            push(
                &mut parent.tree,
                0o40_000,
                (directory.name_in(index), &directory.id),
            );
            if let Some(parent) = self.all.get_mut(parent.number) {
                parent.entries = parent.entries.saturating_add(entries);
            }
        }
    }

    /// Encodes each directory before those below it. Directories of one parent are in the order that git
    /// wants: shorter names first.
    fn encode(&self, index: Entries<'_>) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut next = vec![0];
        while let Some(number) = next.pop() {
            let Some(directory) = self.all.get(number) else {
                continue;
            };
            payload.extend_from_slice(directory.name_in(index));
            let counts = format!("\0{} {}\n", directory.entries, directory.children.len());
            payload.extend_from_slice(counts.as_bytes());
            payload.extend_from_slice(&directory.id);
            let name = |&child: &usize| {
                let name = self.all.get(child).map(|child| child.name_in(index));
                name.map(|name| (name.len(), name))
            };
            let mut children = directory.children.clone();
            children.sort_by(|one, other| name(other).cmp(&name(one)));
            next.extend(children);
        }
        payload
    }
}

impl Directory {
    fn name_in<'a>(&self, index: Entries<'a>) -> &'a [u8] {
        let entry = index.get(self.entry);
        entry
            .and_then(|entry| entry.path.get(self.name.clone()))
            .unwrap_or_default()
    }
}

/// Appends an entry to the content of a tree object.
fn push(tree: &mut Vec<u8>, mode: u32, (name, id): (&[u8], &[u8])) {
    tree.extend_from_slice(format!("{mode:o} ").as_bytes());
    tree.extend_from_slice(name);
    tree.push(0);
    tree.extend_from_slice(id);
}

/// Returns in how many directories, from the root, both paths are.
fn common_directories(one: &[u8], other: &[u8]) -> usize {
    let same = one
        .iter()
        .zip(other)
        .take_while(|(one, other)| one == other);
    same.filter(|(byte, _)| **byte == b'/').count()
}
