//! Lists the repositories in a directory.

use std::fs;
use std::path::Path;

use cachewfs_format::RepoName;

use super::TierError;
use super::directory::Directory;

impl Directory {
    /// Returns all repositories that have a pointer, in no order.
    pub(super) fn published(&self) -> Result<Vec<RepoName>, TierError> {
        let mut found = Vec::new();
        let root = self.root.join("v1");
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory).map_err(TierError::at(&directory))?;
            for entry in entries {
                let path = entry.map_err(TierError::at(&directory))?.path();
                let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
                match name.and_then(|name| name.strip_suffix(".git")) {
                    // Everything below belongs to this repository.
                    Some(name) if path.join("current").is_file() => {
                        found.extend(RepoName::parse(name));
                    }
                    None if path.is_dir() => directories.push(path),
                    Some(_) | None => {}
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskTier;
    use crate::key::{Key, Shelf};
    use crate::testing::ObjectsNow as _;

    #[test]
    fn finds_repositories_with_a_pointer_also_below_another() {
        let root = tempfile::tempdir().unwrap();
        let tier = DiskTier::create(root.path(), &root.path().join("tmp")).unwrap();
        let names = [
            "h.org/a",
            "h.org/a/current",
            "h.org/a/segments/x",
            "i.org/b",
        ];
        let mut repos = names.map(|name| RepoName::parse(name).unwrap());
        for repo in &repos {
            let pointer = Key::pointer(&Shelf::of_snapshots(repo));
            tier.swap(&pointer, None, b"pointer").unwrap();
        }
        fs::create_dir_all(root.path().join("v1/h.org/nothing.git/segments")).unwrap();

        let mut found = tier.repositories().unwrap();

        found.sort();
        repos.sort();
        assert_eq!(found, repos);
    }
}
