//! Finds the installed versions of git.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An installed git.
#[derive(Clone, Debug)]
pub struct GitVersion {
    directory: PathBuf,
    version: String,
}

impl GitVersion {
    /// Returns every git in the directories of `PATH` and of `CACHEWFS_TEST_GITS`, which separates
    /// them with colons like `PATH`. Panics if there is none.
    pub fn all() -> Vec<Self> {
        let directories = ["PATH", "CACHEWFS_TEST_GITS"].into_iter().flat_map(|name| {
            let list = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&list).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = directories
            .filter(|directory| directory.is_absolute())
            .filter_map(|each| Self::in_directory(&each))
            .collect();
        // Several directories may have links to one program.
        let mut seen = BTreeSet::new();
        all.retain(|git| seen.insert(git.real_path()));
        assert!(!all.is_empty(), "no git is installed");
        all
    }

    fn in_directory(directory: &Path) -> Option<Self> {
        let output = Command::new(directory.join("git"))
            .arg("version")
            .output()
            .ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        Some(Self {
            directory: directory.to_owned(),
            version: version.trim().to_owned(),
        })
    }

    /// Returns the program's path with all symbolic links resolved.
    fn real_path(&self) -> PathBuf {
        self.directory.join("git").canonicalize().unwrap()
    }

    /// Returns a `PATH` on which this git comes first.
    pub fn path(&self) -> String {
        let rest = std::env::var("PATH").unwrap_or_default();
        format!("{}:{rest}", self.directory.display())
    }
}

impl std::fmt::Display for GitVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} in {}",
            self.version,
            self.directory.display()
        )
    }
}
