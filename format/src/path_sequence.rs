//! Checks that a list of paths can be the files of one tree.

use crate::{Error, GitPath, Result};

/// A check of the paths of files, one after another, in the order of git's index: sorted by bytes.
///
/// It refuses a path that is out of order, is a duplicate, or is below another path of the
/// sequence. The last rule is for security: if that other path were a symbolic link, extraction
/// would follow it out of the tree.
#[derive(Debug, Default)]
pub struct PathSequence {
    /// The last path, after the earlier paths that are a prefix of it, shortest first. Only these
    /// can be a parent of a later path.
    prefixes: Vec<Box<[u8]>>,
}

impl PathSequence {
    /// Adds the next path, or returns an error if it may not follow the paths before it.
    pub fn push(&mut self, path: &GitPath) -> Result<()> {
        let path = path.as_bytes();
        if self.prefixes.last().is_some_and(|last| **last >= *path) {
            let reason = "it doesn't sort after the path before it";
            return Err(Error::BadPath { reason });
        }
        // `a`, `a-`, `a/b` is sorted, so the parent needn't be the path just before. But in sorted
        // order all paths with one prefix are adjacent. So a path that is no prefix of this one
        // can't be a prefix of a later one, and is forgotten.
        while let Some(last) = self.prefixes.last() {
            match path.strip_prefix(&**last) {
                Some([b'/', ..]) => {
                    let reason = "it is below a path that is a file";
                    return Err(Error::BadPath { reason });
                }
                Some(_) => break,
                None => drop(self.prefixes.pop()),
            }
        }
        self.prefixes.push(path.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(paths: &[&str]) -> bool {
        let mut sequence = PathSequence::default();
        paths.iter().all(|path| {
            let path = GitPath::parse(path.as_bytes()).unwrap();
            sequence.push(&path).is_ok()
        })
    }

    #[test]
    fn accepts_paths_in_the_order_of_an_index() {
        assert!(takes(&[
            "a", "a-", "a-b/c", "a.b", "a0", "ab/c", "ab/c-", "b"
        ]));
    }

    #[test]
    fn refuses_a_file_that_is_also_a_directory_whatever_sorts_between() {
        assert!(!takes(&["a", "a/b"]));
        assert!(!takes(&["a", "a-x", "a/b"]));
        assert!(!takes(&["a", "a-", "a-/x"]));
        assert!(!takes(&["d/a", "d/a.", "d/a/b/c"]));
    }

    #[test]
    fn refuses_paths_out_of_order() {
        assert!(!takes(&["b", "a"]));
        assert!(!takes(&["a", "a"]));
    }
}
