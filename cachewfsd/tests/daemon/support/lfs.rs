//! Repositories with LFS objects, and requests for LFS archives.

use std::path::{Path, PathBuf};

use cachewfs_format::{Digest, Toc, TocLocation};
use reqwest::Response;

use super::test_daemon::*;

pub(crate) fn lfs() -> String {
    format!("/git/{REPO}/lfs-snapshot.tar.zst")
}

/// Creates upstream, and returns a work tree that keeps `*.bin` in LFS. It has two LFS objects, one
/// of them in two files, and an empty file, for which there is no object.
pub(crate) fn create_lfs_upstream(daemon: &TestDaemon) -> PathBuf {
    let work = daemon.create_upstream();
    git(&work, ["lfs", "install", "--local"]);
    git(&work, ["config", "lfs.allowincompletepush", "true"]);
    write_file(
        &work.join(".gitattributes"),
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    write_file(&work.join("dir/large.bin"), noise(1, 3 << 20));
    write_file(&work.join("dir/again.bin"), noise(1, 3 << 20));
    write_file(&work.join("small.bin"), "small\n");
    write_file(&work.join("empty.bin"), "");
    write_file(&work.join("plain.txt"), "plain\n");
    // An ordinary text file for git, because `.gitattributes` does not match it. Upstream has no
    // LFS object for it.
    let oid = "98".repeat(32);
    let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 5\n");
    write_file(&work.join("looks-like-a-pointer.txt"), text);
    work
}

/// Returns the id of the LFS object that the pointer file at `path` in HEAD's tree names.
pub(crate) fn oid_of(work: &Path, path: &str) -> String {
    let pointer = git(work, ["show", &format!("HEAD:{path}")]);
    let (_, rest) = pointer.split_once("sha256:").unwrap();
    rest.get(..64).unwrap().to_owned()
}

/// Returns the path of an LFS object in a git directory.
pub(crate) fn object_path(oid: &str) -> String {
    let part = |range| oid.get(range).unwrap();
    format!("lfs/objects/{}/{}/{oid}", part(0..2), part(2..4))
}

pub(crate) fn object_below(directory: &Path, oid: &str) -> PathBuf {
    directory.join(object_path(oid))
}

/// Requests the LFS archive until it is the one of `commit`.
pub(crate) async fn get_lfs_of(daemon: &TestDaemon, commit: &str) -> Response {
    until_lfs_of(commit, async || daemon.get(&lfs(), &[]).await).await
}

/// Requests an LFS archive with `get` until it is the one of `commit`.
pub(crate) async fn until_lfs_of(commit: &str, get: impl AsyncFn() -> Response) -> Response {
    until(async || {
        let response = get().await;
        let found = response.headers().get("x-cachew-snapshot-commit");
        if found.is_some_and(|found| found == commit) {
            return Ok(response);
        }
        let status = response.status();
        Err(format!("{status}: {}", response.text().await.unwrap()))
    })
    .await
}

pub(crate) fn toc_of(archive: &[u8]) -> (Digest, Toc) {
    let TocLocation::Found(place) = Toc::locate(archive, archive.len() as u64).unwrap() else {
        panic!("the TOC is not in the archive");
    };
    Toc::decode(&archive[place]).unwrap()
}
