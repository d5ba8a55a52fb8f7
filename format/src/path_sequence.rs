//! Checking that paths can stand in one tree.

use crate::{Error, GitPath, Result};

/// Takes the paths of files one by one, in the order of their bytes, as git's index has them; refuses
/// what no tree of files has: a path out of order or twice, one below another that is a file.
///
/// The latter, with a symbolic link for the file, would lead extraction out of the tree.
#[derive(Debug, Default)]
pub struct PathSequence {
    /// The last path, and those before it that begin it, shortest first.
    open: Vec<Box<[u8]>>,
}

impl PathSequence {
    /// Takes the next path, or says that it can't be the next.
    pub fn push(&mut self, path: &GitPath) -> Result<()> {
        let path = path.as_bytes();
        if self.open.last().is_some_and(|last| **last >= *path) {
            let reason = "it doesn't sort after the one before it";
            return Err(Error::BadPath { reason });
        }
        // Paths with a common beginning follow one another: what doesn't begin this one begins no
        // later one.
        while let Some(last) = self.open.last() {
            match path.strip_prefix(&**last) {
                Some([b'/', ..]) => {
                    let reason = "it is below a file";
                    return Err(Error::BadPath { reason });
                }
                Some(_) => break,
                None => drop(self.open.pop()),
            }
        }
        self.open.push(path.into());
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
