//! The size of a commit's tree, measured before any code visits the tree path by path.
//!
//! Trees may share subtrees, so twelve tree objects can have ten thousand million paths. An
//! upstream could exhaust the machine's memory with them. Here each tree object is read once, and
//! the paths are counted from the root downwards:
//!
//! ```text
//! root ─ a, b ─► tree 1 ─ a, b ─► tree 2 ─ a, b ─► one blob      3 trees, 2 × 2 × 2 files
//! ```

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};

use cachewfs_format::ObjectId;
use cachewfs_format::limits::MAX_INDEX_LEN;

use super::PublishError;
use super::job::PublishJob;
use super::tree_size_error::{MAX_PATHS, TreeSizeError};
use crate::mirror::{GitError, GitReader};

/// At most this many bytes are in an index entry beside its path.
const ENTRY_BYTES: u64 = 82;
/// The file with the list of tree objects.
const LIST: &str = "tree-objects.list";
/// At most this many bytes are in the mode of a tree entry: six digits and a space.
const MAX_MODE_LEN: u64 = 7;

/// Fails if the tree of `commit` has more paths than a work tree may have.
///
/// Time and memory depend on the number of tree objects, not on the number of paths.
pub(super) fn check_tree_size(job: &PublishJob<'_>, commit: &str) -> Result<(), PublishError> {
    let numbers = list_trees(job, commit)?;
    let trees = read_trees(job, &numbers)?;
    let size = count(&trees);
    let index_len = size
        .bytes
        .saturating_add(ENTRY_BYTES * size.paths.min(MAX_PATHS));
    if size.paths > MAX_PATHS {
        Err(TreeSizeError::Paths { paths: size.paths }.into())
    } else if index_len > MAX_INDEX_LEN.into() {
        Err(TreeSizeError::Index { bytes: index_len }.into())
    } else {
        Ok(())
    }
}

/// Writes the ids of all tree objects of `commit` to a file, the root first. Returns the position
/// of each tree in it.
fn list_trees(job: &PublishJob<'_>, commit: &str) -> Result<HashMap<ObjectId, u32>, PublishError> {
    job.git("rev-list")
        .args(["--objects", "--no-object-names", "--filter=blob:none"])
        .args([format!("{commit}^{{tree}}")])
        .output_to(job.create(LIST)?)?;
    let path = job.tmp_path(LIST);
    let mut numbers = HashMap::new();
    for line in BufReader::new(job.open(LIST)?).lines() {
        let line = line.map_err(PublishError::at(&path))?;
        let number = u32::try_from(numbers.len()).map_err(|_| TreeSizeError::Paths {
            paths: u64::from(u32::MAX),
        })?;
        numbers.insert(ObjectId::parse(&line)?, number);
    }
    Ok(numbers)
}

/// A tree object, without its names.
#[derive(Debug, Default)]
struct TreeObject {
    entries: u64,
    /// The bytes of the names of all entries, with one separator for each name.
    names: u64,
    subtrees: Vec<Subtree>,
}

/// All entries of one tree object that name one and the same subtree.
#[derive(Debug)]
struct Subtree {
    number: u32,
    entries: u64,
    names: u64,
}

/// Reads the listed trees.
fn read_trees(
    job: &PublishJob<'_>,
    numbers: &HashMap<ObjectId, u32>,
) -> Result<Vec<TreeObject>, PublishError> {
    let objects = job
        .git("cat-file")
        .args(["--batch", "--buffer"])
        .input_file(job.open(LIST)?)
        .reader()?;
    let mut objects = TreeReader {
        job,
        numbers,
        from: BufReader::new(objects),
    };
    let (mut trees, mut entries) = (Vec::new(), 0);
    for _ in 0..numbers.len() {
        job.check_stop()?;
        let tree = objects.read_tree(MAX_PATHS - entries)?;
        entries += tree.entries;
        trees.push(tree);
    }
    Ok(trees)
}

/// A parser of the trees that `git cat-file --batch` prints.
struct TreeReader<'a> {
    job: &'a PublishJob<'a>,
    numbers: &'a HashMap<ObjectId, u32>,
    from: BufReader<GitReader>,
}

impl TreeReader<'_> {
    /// Reads `<oid> <type> <length>`. Returns the length.
    fn read_head(&mut self) -> Result<u64, PublishError> {
        // The limit is for output that isn't such a line: `read_until` would read it all.
        let mut line = Vec::new();
        let read = (&mut self.from).take(200).read_until(b'\n', &mut line);
        read.map_err(|error| self.error(error))?;
        let len = std::str::from_utf8(&line).ok();
        let len = len.and_then(|line| line.trim_end().rsplit_once(' ')?.1.parse().ok());
        len.ok_or_else(|| PublishError::bad_output(&line))
    }

    /// Reads a tree. Fails if it has more than `max_entries` entries.
    fn read_tree(&mut self, max_entries: u64) -> Result<TreeObject, PublishError> {
        let len = self.read_head()?;
        let (mut left, mut tree) = (len, TreeObject::default());
        let mut subtrees: HashMap<u32, (u64, u64)> = HashMap::new();
        while left > 0 {
            let (read, subtree, name) = self.read_entry()?;
            let too_long = || PublishError::bad_output(b"a tree that is longer than its length");
            left = left.checked_sub(read).ok_or_else(too_long)?;
            tree.entries += 1;
            tree.names += name;
            if tree.entries > max_entries {
                return Err(TreeSizeError::Paths {
                    paths: MAX_PATHS + 1,
                }
                .into());
            }
            if let Some(number) = subtree {
                let (entries, names) = subtrees.entry(number).or_default();
                *entries += 1;
                *names += name;
            }
        }
        // Git prints a newline after each object.
        let end = self.from.read_exact(&mut [0]);
        end.map_err(|error| self.error(error))?;
        let to_subtree = |(number, (entries, names))| Subtree {
            number,
            entries,
            names,
        };
        tree.subtrees = subtrees.into_iter().map(to_subtree).collect();
        Ok(tree)
    }

    /// Reads an entry `<mode> <name>\0<oid>`.
    ///
    /// Returns the length of the entry in bytes, the number of the subtree if it is one, and the
    /// length of the name with its final NUL.
    fn read_entry(&mut self) -> Result<(u64, Option<u32>, u64), PublishError> {
        let mut mode = Vec::new();
        let read = (&mut self.from)
            .take(MAX_MODE_LEN)
            .read_until(b' ', &mut mode);
        read.map_err(|error| self.error(error))?;
        // Only the length of a name matters, so the name is skipped, however long it is.
        let name = self.from.skip_until(0);
        let name = name.map_err(|error| self.error(error))? as u64;
        let id_len = self
            .numbers
            .keys()
            .next()
            .map_or(20, |id| id.as_bytes().len());
        let mut id = [0; 32];
        let (id, _) = id.split_at_mut(id_len);
        let read = self.from.read_exact(id);
        read.map_err(|error| self.error(error))?;
        let subtree = if is_tree(&mode) {
            let number = self.numbers.get(&ObjectId::from_bytes(id)?);
            Some(*number.ok_or_else(|| PublishError::bad_output(b"a tree that was not listed"))?)
        } else {
            None
        };
        Ok(((mode.len() + id_len) as u64 + name, subtree, name))
    }

    /// Returns the error of the git process, if a failed read was caused by one.
    fn error(&self, error: std::io::Error) -> PublishError {
        match error.downcast::<GitError>() {
            Ok(error) => error.into(),
            Err(error) => PublishError::at(self.job.tmp)(error),
        }
    }
}

/// Returns whether git takes an entry with this mode as a directory.
fn is_tree(mode: &[u8]) -> bool {
    let mode = std::str::from_utf8(mode).unwrap_or_default();
    u32::from_str_radix(mode.trim_end(), 8).is_ok_and(|mode| mode & 0o170_000 == 0o040_000)
}

/// The number and the length of all paths of a tree. Both saturate at `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TreeSize {
    /// The number of files and directories.
    paths: u64,
    /// The bytes of their paths together.
    bytes: u64,
}

/// Counts the paths of the first of `trees`.
fn count(trees: &[TreeObject]) -> TreeSize {
    let mut size = TreeSize::default();
    // For each tree: at how many paths it is, and how long these paths are together. A tree is
    // visited once, after all its parents, because only then is its number of paths complete.
    // `parents` counts the parents that have not been visited yet.
    let mut places = vec![TreeSize::default(); trees.len()];
    let mut parents = vec![0_u64; trees.len()];
    for subtree in trees.iter().flat_map(|tree| &tree.subtrees) {
        if let Some(parents) = parents.get_mut(subtree.number as usize) {
            *parents += 1;
        }
    }
    if let Some(root) = places.first_mut() {
        root.paths = 1;
    }
    let mut ready = vec![0];
    while let Some(number) = ready.pop() {
        let (Some(tree), Some(&at)) = (trees.get(number), places.get(number)) else {
            continue;
        };
        size.add(at, tree.entries, tree.names);
        for subtree in &tree.subtrees {
            let number = subtree.number as usize;
            let (Some(place), Some(left)) = (places.get_mut(number), parents.get_mut(number))
            else {
                continue;
            };
            place.add(at, subtree.entries, subtree.names);
            *left -= 1;
            if *left == 0 {
                ready.push(number);
            }
        }
    }
    size
}

impl TreeSize {
    /// Adds the entries of a tree at each of the paths `at` of that tree. `names` are the bytes of
    /// the names of these entries together.
    fn add(&mut self, at: Self, entries: u64, names: u64) {
        let new = at.paths.saturating_mul(entries);
        self.paths = self.paths.saturating_add(new);
        let before = at.bytes.saturating_mul(entries);
        let names = at.paths.saturating_mul(names);
        self.bytes = self.bytes.saturating_add(before).saturating_add(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tree with this number of files and these subtrees, all with names of one letter.
    fn tree(files: u64, subtrees: &[u32]) -> TreeObject {
        let entries = files + subtrees.len() as u64;
        let subtrees = subtrees.iter().map(|&number| Subtree {
            number,
            entries: 1,
            names: 2,
        });
        TreeObject {
            entries,
            names: 2 * entries,
            subtrees: subtrees.collect(),
        }
    }

    #[test]
    fn paths_are_counted_at_each_place_of_a_tree() {
        // x, d/x, d/y, d/e/x, e/x with the directories d, d/e, e
        let trees = [tree(1, &[1, 2]), tree(2, &[2]), tree(1, &[])];

        let size = count(&trees);

        let expected = ["x", "d", "d/x", "d/y", "d/e", "d/e/x", "e", "e/x"];
        let bytes = expected.iter().map(|path| path.len() as u64 + 1).sum();
        assert_eq!(
            size,
            TreeSize {
                paths: expected.len() as u64,
                bytes
            }
        );
    }

    #[test]
    fn no_tree_is_too_large_to_be_counted() {
        let level = |number: u32| TreeObject {
            entries: 10,
            names: 20,
            subtrees: vec![Subtree {
                number: number + 1,
                entries: 10,
                names: 20,
            }],
        };
        let mut trees: Vec<_> = (0..11).map(level).collect();
        trees.push(tree(10, &[]));
        let mut chain: Vec<_> = (1..100_000).map(|next| tree(1, &[next])).collect();
        chain.push(tree(1, &[]));

        assert_eq!(count(&trees).paths, 1_111_111_111_110);
        assert_eq!(count(&chain).paths, 199_999);
        assert!(count(&chain).bytes > MAX_INDEX_LEN.into());
        let mut endless: Vec<_> = (0..100).map(level).collect();
        endless.push(tree(10, &[]));
        assert_eq!(count(&endless).paths, u64::MAX);
    }

    #[test]
    fn directories_are_known_by_their_mode() {
        for tree in ["40000 ", "040000 ", "40755 "] {
            assert!(is_tree(tree.as_bytes()), "{tree}");
        }
        for other in ["100644 ", "120000 ", "160000 ", "", "x "] {
            assert!(!is_tree(other.as_bytes()), "{other}");
        }
    }
}
