//! Computes the tree extension of an index (git's cache tree), which has the id of every git tree.
//!
//! Without the extension, git would read every tree object to compare an index with a commit.

use std::ops::Range;

use super::entries::Entries;
use crate::GitHash;

/// The extension may be this many bytes longer than a quarter of the index. The extension of a real
/// work tree is much shorter. If it would be longer, it is left out: git works without it.
const MAX_EXTRA_LEN: usize = 1 << 20;
/// About how many bytes the record of a directory takes beside its name and its id: NUL, two
/// numbers and a newline.
const RECORD_LEN: usize = 8;

/// A directory of the index.
struct Directory {
    /// The name of the directory, as a range of bytes of the path of its first entry.
    name: Range<usize>,
    /// The number of its first entry.
    entry: usize,
    /// The count of entries below it, at any depth.
    entries: usize,
    /// The numbers of its subdirectories.
    children: Vec<usize>,
    /// The id of its git tree, once all of its entries are known.
    id: Vec<u8>,
}

/// A directory whose entries aren't all known yet.
struct OpenDirectory {
    number: usize,
    /// The content of its tree object so far.
    tree: Vec<u8>,
}

/// Returns the tree extension of an index, with its signature and its length. Returns no bytes if
/// the extension would be too long.
pub(super) fn tree_extension(index: Entries<'_>) -> Vec<u8> {
    // An archive can have an index with many deep directories for few files: a path of 4096 bytes
    // has up to 2047 of them. The limit keeps the memory in proportion to the bytes that were
    // fetched.
    let max_len = (index.bytes.len() / 4).saturating_add(MAX_EXTRA_LEN);
    let Some(directories) = Directories::of(index, max_len) else {
        return Vec::new();
    };
    let payload = directories.encode(index);
    let len = u32::try_from(payload.len()).unwrap_or(0);
    [b"TREE", &len.to_be_bytes()[..], &payload].concat()
}

/// The directories of an index. The first one is the root of the work tree.
struct Directories {
    all: Vec<Directory>,
    id_len: usize,
    /// The number of bytes that the rest of the extension may take.
    left: usize,
}

impl Directories {
    /// Finds the directories of an index, and computes the ids of their trees. Returns `None` if
    /// the extension would be longer than `max_len` bytes.
    fn of(index: Entries<'_>, max_len: usize) -> Option<Self> {
        let mut directories = Self {
            all: Vec::new(),
            id_len: index.id_len,
            left: max_len,
        };
        // The entries are sorted by path. So one pass is enough, with a stack of the directories
        // from the root to the current entry. A directory is complete once an entry is outside of
        // it.
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

    /// Closes the innermost open directory: computes the id of its tree, and adds it to its parent.
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

    /// Encodes the records of all directories, each before those of its subdirectories.
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
            // git sorts the subdirectories of one directory by the length of their names first.
            // They are sorted in reverse here, because the last item of `next` is taken first.
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

/// Returns the number of directories, below the root, that have both paths.
fn common_directories(one: &[u8], other: &[u8]) -> usize {
    let same = one
        .iter()
        .zip(other)
        .take_while(|(one, other)| one == other);
    same.filter(|(byte, _)| **byte == b'/').count()
}
