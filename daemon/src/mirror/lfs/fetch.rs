//! Fetches Git LFS objects from upstream, batch after batch.

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use super::batch::Batch;
use super::download::Downloads;
use super::{LfsFetchError, LfsObject, local};
use crate::mirror::effective_url::effective_url_and_login;
use crate::mirror::{Git, GitError, Upstream};

/// At most this many objects are in one batch request, as with git-lfs.
const OBJECTS_PER_REQUEST: usize = 100;
/// At most this many objects are downloaded at once, as with git-lfs.
const DOWNLOADS_AT_ONCE: usize = 8;

/// Fetches LFS objects into `directory`, each to its own path there. Blocks the thread.
///
/// Leaves out objects that upstream doesn't have. The caller must verify the files: their content
/// may not match their ids.
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
    let url = upstream.current_url();
    let url = format!("{}.git", url.strip_suffix(".git").unwrap_or(&url));
    let (url, login) = effective_url_and_login(git, upstream, &url).map_err(LfsFetchError::Git)?;
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
