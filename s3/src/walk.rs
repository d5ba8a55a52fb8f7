//! Lists the repositories in a bucket by walking the common prefixes as directories.

use cachewfs_format::RepoName;
use cachewfs_store::BucketOperation;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Bucket, S3Error};

/// At most this many directories are listed at the same time.
const MAX_LISTINGS: usize = 8;
/// At most this many directories are listed in all: hosts, owners and groups. The rest is left out.
const MAX_DIRECTORIES: usize = 20_000;

impl Bucket {
    /// Returns all repositories that have an object below `root`, in no order. Needs one request
    /// for each directory above them, or for each 1000 entries of it.
    pub(super) async fn repositories(&self, root: &str) -> Result<Vec<RepoName>, S3Error> {
        let mut found = Vec::new();
        let mut level = vec![String::new()];
        let mut listed = 0;
        while !level.is_empty() {
            listed += level.len();
            if listed > MAX_DIRECTORIES {
                let limit = MAX_DIRECTORIES;
                tracing::warn!(
                    limit,
                    "Too many directories in the bucket: the listing is cut"
                );
                break;
            }
            let listings = level.iter().map(|above| self.directories(root, above));
            // Collected, so that the compiler can see that the listings may move to another thread.
            let listings: Vec<_> = listings.collect();
            let listings = stream::iter(listings).buffer_unordered(MAX_LISTINGS);
            let names: Vec<Vec<String>> = listings.try_collect().await?;
            let mut below = Vec::new();
            for name in names.into_iter().flatten() {
                match name.strip_suffix(".git/") {
                    // Everything below belongs to this repository.
                    Some(repo) => found.extend(RepoName::parse(repo)),
                    None => below.push(name),
                }
            }
            level = below;
        }
        Ok(found)
    }

    /// Returns the directories of `root` one level below `above`. Each begins with `above` and ends
    /// with a slash.
    async fn directories(&self, root: &str, above: &str) -> Result<Vec<String>, S3Error> {
        let root = self.key(root);
        let prefix = &format!("{root}{above}");
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let token = &next;
            let page = self.retry(BucketOperation::List, || async move {
                let request = self.client.list_objects_v2().bucket(&self.name);
                let request = request.prefix(prefix).delimiter("/");
                Ok(request.set_continuation_token(token.clone()).send().await?)
            });
            let page = page.await?;
            for directory in page.common_prefixes.unwrap_or_default() {
                let key = directory.prefix.unwrap_or_default();
                let name = key.strip_prefix(&root);
                // Only deeper names: a faulty service must not make the walk go in circles.
                let name =
                    name.filter(|name| name.starts_with(above) && name.len() > above.len() + 1);
                found.extend(name.map(str::to_owned));
            }
            next = page.next_continuation_token;
            if next.is_none() || page.is_truncated == Some(false) {
                return Ok(found);
            }
        }
    }
}
