//! A model of the client that workstations use today: its requests, and how it handles the
//! responses.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::stream::{self, StreamExt as _};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

/// The options of the client. The defaults are those of the real one, except for smaller ranges.
struct Restore {
    /// The number of concurrent range requests. 1 means one plain request without a range.
    concurrency: usize,
    range_len: u64,
    is_bundle_wanted: bool,
    refs: Vec<(String, String)>,
    commits: Vec<String>,
}

impl Default for Restore {
    fn default() -> Self {
        Self {
            concurrency: 8,
            range_len: 100_000,
            is_bundle_wanted: true,
            refs: Vec::new(),
            commits: Vec::new(),
        }
    }
}

/// The error with which the client ends.
type ClientError = String;

impl Restore {
    /// Restores the repository into a new directory. Returns the directory.
    async fn run(&self, daemon: &TestDaemon) -> Result<PathBuf, ClientError> {
        let clone = tempfile::tempdir_in(daemon.root.path()).unwrap().keep();
        let bundle_url = if self.concurrency == 1 {
            self.download_plainly(daemon, &clone).await?
        } else {
            self.download_in_ranges(daemon, &clone).await?
        };
        if let Some(bundle_url) = bundle_url.filter(|_| self.is_bundle_wanted) {
            self.apply_bundle(daemon, &bundle_url, &clone).await;
        }
        if !self.refs.is_empty() || !self.commits.is_empty() {
            self.satisfy_refs(daemon, &clone).await?;
        }
        Ok(clone)
    }

    async fn download_plainly(
        &self,
        daemon: &TestDaemon,
        clone: &Path,
    ) -> Result<Option<String>, ClientError> {
        let response = daemon.get(&stable(), &[]).await;
        if response.status() != 200 {
            return Err(format!("no snapshot: {}", response.status().as_u16()));
        }
        let bundle_url = bundle_url(&response);
        extract_stream(response, clone).await?;
        Ok(bundle_url)
    }

    async fn download_in_ranges(
        &self,
        daemon: &TestDaemon,
        clone: &Path,
    ) -> Result<Option<String>, ClientError> {
        let range = |start: u64| format!("bytes={start}-{}", start + self.range_len - 1);
        let first = daemon.get(&stable(), &[("range", &range(0))]).await;
        let bundle_url = bundle_url(&first);
        match first.status().as_u16() {
            206 => {}
            200 => {
                extract_stream(first, clone).await?;
                return Ok(bundle_url);
            }
            status => return Err(format!("no snapshot: {status}")),
        }
        let etag = header(&first, "etag");
        let content_range = header(&first, "content-range");
        let total: u64 = content_range.rsplit('/').next().unwrap().parse().unwrap();
        let mut extract = Extract::into(clone);
        extract.push(&first.bytes().await.map_err(|error| error.to_string())?)?;
        let step = usize::try_from(self.range_len).unwrap();
        let starts = (self.range_len..total).step_by(step);
        let mut parts = stream::iter(starts)
            .map(|start| {
                let (range, etag) = (range(start), etag.clone());
                async move { fetch_part(daemon, start, (&range, &etag)).await }
            })
            .buffered(self.concurrency);
        while let Some(part) = parts.next().await {
            extract.push(&part?)?;
        }
        extract.finish()?;
        Ok(bundle_url)
    }

    /// Applies a bundle. The client ignores failures here.
    async fn apply_bundle(&self, daemon: &TestDaemon, url: &str, clone: &Path) {
        let response = daemon.get(url, &[]).await;
        if response.status() != 200 {
            return;
        }
        let file = clone.with_extension("bundle");
        write_file(&file, response.bytes().await.unwrap());
        let branch = git(clone, ["symbolic-ref", "--short", "HEAD"]);
        try_git(
            clone,
            &["pull", "--ff-only", file.to_str().unwrap(), &branch],
        );
    }

    async fn satisfy_refs(&self, daemon: &TestDaemon, clone: &Path) -> Result<(), ClientError> {
        let has = |oid: &str| try_git(clone, &["cat-file", "-e", oid]).status.success();
        let refs = self.refs.iter().map(|(_, oid)| oid);
        if refs.chain(&self.commits).all(|oid| has(oid)) {
            return Ok(());
        }
        let refs: serde_json::Map<String, Value> = self
            .refs
            .iter()
            .map(|(name, oid)| (name.clone(), oid.clone().into()))
            .collect();
        let request = json!({"refs": refs, "commits": self.commits});
        let path = format!("/git/{REPO}/ensure-refs");
        let response = daemon.post(&path, request.to_string()).await;
        if response.status() != 200 {
            return Err(format!("ensure-refs: {}", response.status()));
        }
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        if !answer["missing_commits"].as_array().unwrap().is_empty() {
            return Err(format!("missing: {}", answer["missing_commits"]));
        }
        let resolved = answer["refs"].as_object().unwrap();
        let is_here = |oid: &Value| has(oid.as_str().unwrap());
        if resolved.values().all(is_here) && self.commits.iter().all(|oid| has(oid)) {
            return Ok(());
        }
        let pull = try_git(clone, &["pull", "--ff-only"]);
        if pull.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&pull.stderr).into_owned())
        }
    }
}

fn bundle_url(response: &Response) -> Option<String> {
    let url = response.headers().get("x-cachew-bundle-url")?;
    Some(url.to_str().unwrap().to_owned())
}

/// Fetches a range of a known revision. Any other response ends the client.
async fn fetch_part(
    daemon: &TestDaemon,
    start: u64,
    (range, etag): (&str, &str),
) -> Result<Vec<u8>, ClientError> {
    let headers = [("range", range), ("if-match", etag)];
    let part = daemon.get(&stable(), &headers).await;
    if part.status() != 206 {
        return Err(format!("{range}: {}", part.status()));
    }
    if header(&part, "etag") != etag {
        return Err(format!("{range}: another revision"));
    }
    let content_range = header(&part, "content-range");
    assert!(content_range.starts_with(&format!("bytes {start}-")));
    let len = part.content_length();
    let bytes = part.bytes().await.map_err(|error| error.to_string())?;
    assert_eq!(len, Some(bytes.len() as u64));
    Ok(bytes.to_vec())
}

/// The pipe `zstd -dc | tar -xpf -`.
struct Extract {
    child: Child,
}

impl Extract {
    fn into(directory: &Path) -> Self {
        let child = Command::new("bash")
            .args([
                "-c",
                "set -o pipefail; zstd -dc | tar -xpf - -C \"$1\"",
                "-",
            ])
            .arg(directory)
            .stdin(Stdio::piped())
            .spawn();
        Self {
            child: child.unwrap(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).map_err(|error| error.to_string())
    }

    fn finish(mut self) -> Result<(), ClientError> {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        if status.success() {
            Ok(())
        } else {
            Err(format!("extracting: {status}"))
        }
    }
}

async fn extract_stream(mut response: Response, directory: &Path) -> Result<(), ClientError> {
    let mut extract = Extract::into(directory);
    while let Some(bytes) = response.chunk().await.map_err(|error| error.to_string())? {
        extract.push(&bytes)?;
    }
    extract.finish()
}

fn head(clone: &Path) -> String {
    git(clone, ["rev-parse", "HEAD"])
}

/// Starts a daemon whose upstream has one commit of half a megabyte.
async fn start() -> (TestDaemon, Gate, PathBuf, String) {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 500_000));
    let commit = commit_and_push(&work, "one");
    (daemon, gate, work, commit)
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_in_ranges_and_plainly() {
    let (daemon, _gate, _work, commit) = start().await;
    daemon.refresh().await;

    for concurrency in [8, 1] {
        let restore = Restore {
            concurrency,
            ..Restore::default()
        };
        let clone = restore.run(&daemon).await.unwrap();

        assert_eq!(head(&clone), commit);
        assert_good_clone(&clone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_an_unpublished_repository() {
    for concurrency in [8, 1] {
        let (daemon, gate, _work, commit) = start().await;
        gate.close();
        let restore = Restore {
            concurrency,
            ..Restore::default()
        };

        let open = async {
            // Once this response begins, that of the client, which asked earlier, has begun, too.
            let stream = daemon.get(&stable(), &[]).await;
            assert_eq!(stream.status(), 200);
            gate.open();
        };
        let (clone, ()) = tokio::join!(restore.run(&daemon), open);

        let clone = clone.unwrap();
        assert_eq!(head(&clone), commit);
        assert_good_clone(&clone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_an_old_snapshot_and_its_bundle() {
    let (daemon, _gate, work, old) = start().await;
    daemon.refresh().await;
    let new = commit_and_push(&work, "two");
    let blocked_publish = BlockedPublish::after_update(&daemon).await;

    for is_bundle_wanted in [true, false] {
        let restore = Restore {
            is_bundle_wanted,
            ..Restore::default()
        };
        let clone = restore.run(&daemon).await.unwrap();

        let expected = if is_bundle_wanted { &new } else { &old };
        assert_eq!(&head(&clone), expected);
        assert_good_clone(&clone);
    }
    drop(blocked_publish);
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_with_refs_and_commits_that_are_newer() {
    let (daemon, _gate, work, _old) = start().await;
    daemon.refresh().await;
    let new = commit_and_push(&work, "two");

    let restore = Restore {
        refs: vec![("refs/heads/main".to_owned(), new.clone())],
        commits: vec![new.clone()],
        ..Restore::default()
    };
    let clone = restore.run(&daemon).await.unwrap();

    assert_eq!(head(&clone), new);
    assert_good_clone(&clone);
    // Publishes the fetched commit first: a change of revision would end a running download.
    daemon.refresh().await;
    let nowhere = Restore {
        commits: vec!["1".repeat(40)],
        ..Restore::default()
    };
    let error = nowhere.run(&daemon).await.unwrap_err();
    assert!(error.contains("missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_a_misspelled_name_fails_with_404() {
    let (daemon, _gate, _work, _commit) = start().await;
    std::fs::rename(daemon.upstream(), daemon.root.path().join("away")).unwrap();

    let error = Restore::default().run(&daemon).await.unwrap_err();

    assert_eq!(error, "no snapshot: 404");
}
