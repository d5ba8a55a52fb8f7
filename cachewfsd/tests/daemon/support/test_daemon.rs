//! An upstream repository on disk, a daemon that mirrors it, and stock tools to look at archives.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cachewfs_daemon::{Config, Running};
use cachewfs_format::Manifest;
use cachewfs_tests::{Dice, assert_index_checksum, git_at_time};
pub(crate) use cachewfs_tests::{git_with_input, try_git, write_file};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use super::wait::{eventually, until};

pub(crate) const REPO: &str = "git.example.com/org/repo";
pub(crate) const WITH_GIT: &str = "git.example.com/org/repo.git";

/// Runs git at a fixed time. Returns its output without the white space around it.
pub(crate) fn git<A: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let arguments: Vec<A> = arguments.into_iter().collect();
    git_at_time(directory, 0, &arguments).trim().to_owned()
}

/// Returns bytes that don't compress. Equal seeds give equal bytes.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    Dice::new(seed).noise(len)
}

/// Creates the bare repository `bare`. Returns the clone `work` of it, to commit in.
pub(crate) fn create_upstream(bare: &Path, work: PathBuf) -> PathBuf {
    let root = Path::new("/");
    let (from, to) = (bare.to_str().unwrap(), work.to_str().unwrap());
    git(root, ["init", "-q", "--bare", "-b", "main", from]);
    git(root, ["clone", "-q", from, to]);
    git(&work, ["checkout", "-q", "-B", "main"]);
    work
}

/// A running daemon with its upstream, both in one temporary directory.
pub(crate) struct TestDaemon {
    pub(crate) root: TempDir,
    pub(crate) running: Running,
    client: Client,
}

impl TestDaemon {
    /// Starts a daemon whose one host is a directory of repositories.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(root: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let base = format!("file://{}", root.path().join("upstream").display());
        fs::create_dir_all(root.path().join("upstream/org")).unwrap();
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.path().join("data").into(),
            upstreams: [("git.example.com".to_owned(), base.into())].into(),
            fetch_interval: Duration::from_hours(1),
            // Long intervals: the daemon asks upstream only if the test requests it.
            ref_check_interval: Duration::from_hours(1),
            publish_delay: Duration::ZERO,
            ..Config::default()
        };
        fs::create_dir_all(config.data_dir.path()).unwrap();
        change(&mut config);
        let running = cachewfsd::daemon().start(config).await.unwrap();
        Self {
            root,
            running,
            client: Client::new(),
        }
    }

    /// Stops the daemon. Returns its directory, in which another daemon can be started.
    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown.cancel();
        self.running.stopped().await;
        self.root
    }

    /// Creates the bare upstream repository. Returns a work tree to commit in.
    pub(crate) fn create_upstream(&self) -> PathBuf {
        self.create_upstream_at("org/repo", "work")
    }

    /// Creates a bare repository at `path` below the upstream host, and the work tree `work`.
    pub(crate) fn create_upstream_at(&self, path: &str, work: &str) -> PathBuf {
        let root = self.root.path();
        let bare = root.join("upstream").join(format!("{path}.git"));
        create_upstream(&bare, root.join(work))
    }

    pub(crate) fn upstream(&self) -> PathBuf {
        self.root.path().join("upstream").join("org/repo.git")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address)
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = self.client.request(method, self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request(Method::GET, path, headers).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(self.url(path)).body(body);
        request.send().await.unwrap()
    }

    /// Requests an update and a publish. Returns the response.
    pub(crate) async fn refresh(&self) -> Value {
        let path = format!("/git/{REPO}/refresh");
        let response = self.request(Method::POST, &path, &[]).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the state of the repository as the API reports it.
    pub(crate) async fn status(&self) -> Value {
        let path = format!("/api/v1/repos/{REPO}");
        let text = self.get(&path, &[]).await.text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the API reports a state that meets `condition`. Returns that state.
    pub(crate) async fn status_when(&self, condition: impl Fn(&Value) -> bool) -> Value {
        until(async || {
            let status = self.status().await;
            if condition(&status) {
                Ok(status)
            } else {
                Err(status)
            }
        })
        .await
    }

    /// Downloads an archive and extracts it with tar and zstd.
    pub(crate) async fn extract(&self, archive: &str) -> PathBuf {
        let path = format!("/git/{REPO}/{archive}");
        let response = self.get(&path, &[]).await;
        assert_eq!(response.status(), 200);
        untar(&response.bytes().await.unwrap(), self.root.path())
    }

    /// Returns the directory of the repository in the store.
    pub(crate) fn store(&self) -> PathBuf {
        let store = self.root.path().join("data/store/v1");
        store.join(format!("{REPO}.git"))
    }

    pub(crate) fn manifest(&self, snapshot: &str) -> Manifest {
        let bytes = fs::read(self.store().join("snapshots").join(snapshot)).unwrap();
        Manifest::parse(&bytes).unwrap()
    }

    /// Returns whether the store has nothing of the repository but the deletion notices, which name
    /// the ids that were forgotten.
    pub(crate) fn has_forgotten(&self) -> bool {
        let of_lfs = self.store().join("lfs");
        let files = [self.store(), of_lfs.clone()].into_iter().flat_map(|part| {
            let files = fs::read_dir(part).into_iter().flatten();
            files.map(|file| file.unwrap().path())
        });
        let mut files = files.filter(|file| *file != of_lfs);
        let is_note = |file: PathBuf| file.file_stem().unwrap() == "deletions";
        self.store().join("deletions").exists() && files.all(is_note)
    }

    /// Returns the total size of the snapshots and segments in the store, in bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        ["snapshots", "segments"]
            .iter()
            .flat_map(|part| fs::read_dir(self.store().join(part)).unwrap())
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    }
}

/// Creates an upstream with two commits. Returns its work tree and its newest commit.
pub(crate) fn grown_upstream(daemon: &TestDaemon) -> (PathBuf, String) {
    let work = daemon.create_upstream();
    write_file(&work.join("file"), noise(1, 100_000));
    commit_and_push(&work, "one");
    write_file(&work.join("file"), noise(2, 100_000));
    let head = commit_and_push(&work, "two");
    (work, head)
}

/// Creates a history with files of several sizes, two branches and an annotated tag.
pub(crate) fn fill(work: &Path) {
    for commit in 0..8_u32 {
        for file in 0..40_u32 {
            let text = format!("file {file}\n{}", "line\n".repeat((file + commit) as usize));
            write_file(&work.join(format!("src/{}/{file}.txt", file % 5)), text);
        }
        write_file(&work.join("noise.bin"), noise(u64::from(commit), 300_000));
        git(work, ["add", "-A"]);
        git(work, ["commit", "-q", "-m", &format!("commit {commit}")]);
    }
    git(work, ["rm", "-q", "noise.bin"]);
    git(work, ["branch", "side", "HEAD~3"]);
    git(work, ["tag", "-a", "v1", "-m", "one", "HEAD~2"]);
}

/// Extracts an archive with tar and zstd to a new directory below `root`.
pub(crate) fn untar(archive: &[u8], root: &Path) -> PathBuf {
    let to = tempfile::tempdir_in(root).unwrap().keep();
    let file = to.with_extension("tar.zst");
    write_file(&file, archive);
    let output = Command::new("tar")
        .arg("--zstd")
        // A file that changes several times within one second gets a time in the future.
        .arg("--warning=no-timestamp")
        .arg("-xpf")
        .arg(&file)
        .arg("-C")
        .arg(&to)
        .output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    to
}

/// Commits everything in `work` and pushes all branches and tags. Returns the commit.
pub(crate) fn commit_and_push(work: &Path, message: &str) -> String {
    git(work, ["add", "-A"]);
    git(work, ["commit", "-q", "--allow-empty", "-m", message]);
    git(work, ["push", "-q", "--force", "--all"]);
    git(work, ["push", "-q", "--force", "--tags"]);
    git(work, ["rev-parse", "HEAD"])
}

/// Checks the invariants of an extracted checkout archive, whatever its content.
pub(crate) fn assert_good_clone(clone: &Path) {
    git(clone, ["fsck", "--strict", "--no-dangling"]);
    assert_eq!(git(clone, ["status", "--porcelain", "--ignored"]), "");
    git(clone, ["commit-graph", "verify"]);
    assert_index_checksum(&clone.join(".git"));
}

/// Returns the path of the stable URL of the checkout archive.
pub(crate) fn stable() -> String {
    format!("/git/{REPO}/snapshot.tar.zst")
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    let value = response
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {response:?}"));
    value.to_str().unwrap().to_owned()
}

/// Returns the status and the code of an error response.
pub(crate) async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().ends_with('.'),
        "{body}"
    );
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

/// Sends a request until the answer has this status. Returns that answer.
pub(crate) async fn answer_with(status: u16, mut ask: impl AsyncFnMut() -> Response) -> Response {
    until(async || {
        let answer = ask().await;
        let found = answer.status();
        if found == status {
            Ok(answer)
        } else {
            Err(found)
        }
    })
    .await
}

/// A guard that makes every publish fail until it is dropped, so that the mirror stays ahead of the
/// published snapshot.
pub(crate) struct BlockedPublish {
    deletions: PathBuf,
}

impl BlockedPublish {
    /// Updates the mirror. The publish that follows fails, because the deletion notices are
    /// damaged.
    pub(crate) async fn after_update(daemon: &TestDaemon) -> Self {
        let deletions = daemon.store().join("deletions");
        write_file(&deletions, "damaged");
        let refresh = format!("/git/{REPO}/refresh");
        let failed = daemon.post(&refresh, "").await;
        assert_eq!(failed.status(), 500);
        Self { deletions }
    }
}

impl Drop for BlockedPublish {
    fn drop(&mut self) {
        fs::remove_file(&self.deletions).unwrap();
    }
}
