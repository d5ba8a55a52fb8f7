//! Git LFS objects of upstream, which the daemon fetches itself: git-lfs would ask any server that
//! an answer names.
//!
//! ```text
//! batch (which URLs) ─► download (with redirects) ─► a file for each object
//!                          └► guard (which addresses)
//! ```
//!
//! No `.lfsconfig` is read, with which a repository could send the daemon to any server. No error
//! has a part of an answer, so that nobody can use the daemon to look around in its network.

mod batch;
mod download;
mod error;
mod guard;
mod local;

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use super::as_git::as_git;
use super::{Git, GitError, Upstream};
use batch::Batch;
use download::Downloads;
pub(crate) use error::LfsFetchError;

/// At most this many objects are asked for in one request, as git-lfs does.
const OBJECTS_PER_REQUEST: usize = 100;
/// At most this many objects are downloaded at once, as git-lfs does.
const DOWNLOADS_AT_ONCE: usize = 8;

/// An object that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct LfsObject {
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub(crate) oid: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Where it is in a git directory.
    pub(crate) path: String,
}

/// Fetches LFS objects into `directory`, each to its path there. Objects that upstream doesn't have
/// are left out; nothing says that the others are what their ids name. Blocks the thread.
pub(crate) fn fetch_lfs_objects(
    git: &Git,
    upstream: &Upstream,
    (directory, wanted): (&Path, &[LfsObject]),
    time_limit: Duration,
) -> Result<(), LfsFetchError> {
    for object in wanted {
        let path = directory.join(&object.path);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent).map_err(LfsFetchError::at(parent))?;
    }
    if let Some(upstream) = upstream.directory() {
        return local::copy(&upstream, (directory, wanted));
    }
    let place = upstream.place();
    let url = format!("{}.git", place.strip_suffix(".git").unwrap_or(&place));
    let (url, login) = as_git(git, upstream, &url).map_err(LfsFetchError::Git)?;
    let fetch = async {
        for wanted in wanted.chunks(OBJECTS_PER_REQUEST) {
            let batch = Batch::ask(upstream, (&url, login.as_ref()), wanted).await?;
            let downloads = Downloads::new(&batch, (&url, login.clone())).await?;
            let each = stream::iter(wanted).map(|object| {
                let path = directory.join(&object.path);
                downloads.fetch(batch.action(object), object, path)
            });
            let all = each.buffer_unordered(DOWNLOADS_AT_ONCE);
            all.try_collect::<()>().await?;
        }
        Ok(())
    };
    let fetched = git.wait_for(git.unless_stopping(timeout(time_limit, fetch)));
    match fetched {
        None => Err(LfsFetchError::Git(GitError::Stopped {
            command: "lfs".to_owned(),
        })),
        Some(Err(_)) => Err(LfsFetchError::TooSlow { limit: time_limit }),
        Some(Ok(fetched)) => fetched,
    }
}
