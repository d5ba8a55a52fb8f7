//! The `[store]` section of the configuration: where what is published is kept.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The `[store]` section: where what is published is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where segments, manifests and pointers are. Several daemons may have the same directory; it may
    /// be on another filesystem than `data_dir`. Default: `store` below `data_dir`.
    pub directory: Option<PathBuf>,
}

impl StoreConfig {
    /// Where the store is, and where its files are until they are whole.
    pub(crate) fn directories(&self, data_dir: &Path) -> (PathBuf, PathBuf) {
        match &self.directory {
            Some(directory) => (directory.clone(), directory.join("tmp")),
            None => (data_dir.join("store"), data_dir.join("tmp")),
        }
    }
}
