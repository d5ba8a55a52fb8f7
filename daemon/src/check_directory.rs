//! Checks whether the daemon could create its directories, and creates nothing.

use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::Access;

/// Why a directory can't be used.
pub(crate) enum Obstacle {
    /// No user on any machine with these files could create it: a part of its path is a file.
    ForAll(io::Error),
    /// The present user can't, on this machine.
    Here(io::Error),
}

/// Returns why `directory` can't be used or created, or `None` if nothing speaks against it.
pub(crate) fn obstacle(directory: &Path) -> Option<Obstacle> {
    let mut existing = directory;
    let metadata = loop {
        match (std::fs::metadata(existing), existing.parent()) {
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => existing = parent,
            (metadata, _) => break metadata,
        }
    };
    match metadata {
        Ok(metadata) if !metadata.is_dir() => {
            Some(Obstacle::ForAll(ErrorKind::NotADirectory.into()))
        }
        Ok(_) => {
            let may_write = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            let refused = rustix::fs::access(existing, may_write).err()?;
            Some(Obstacle::Here(refused.into()))
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => Some(Obstacle::ForAll(error)),
        // A relative path whose first directory doesn't exist: the current directory has it.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Obstacle::Here(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_a_file_is_impossible_and_a_missing_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::File::create(&file).unwrap();

        for bad in [&file, &file.join("x"), &file.join("x/y")] {
            assert!(matches!(obstacle(bad), Some(Obstacle::ForAll(_))));
        }
        for good in [directory.path(), &directory.path().join("x/y")] {
            assert!(obstacle(good).is_none());
        }
    }
}
