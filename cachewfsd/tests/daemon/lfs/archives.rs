//! `lfs-snapshot.tar.zst`: LFS archives of repositories that the real git-lfs has made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use cachewfs_format::{ArchiveKind, Manifest, Role};
use reqwest::Method;
use serde_json::Value;

use crate::support::lfs::*;
use crate::support::test_daemon::*;

fn extract(archive: &[u8], to: &Path) {
    let file = to.join("../archive.tar.zst");
    write_file(&file, archive);
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "-xf"]).arg(&file).arg("-C").arg(to);
    assert!(tar.status().unwrap().success());
    fs::remove_file(file).unwrap();
}

fn files_below(directory: &Path) -> BTreeSet<String> {
    let files = Command::new("find")
        .args([".", "-type", "f", "-printf", "%P\n"])
        .current_dir(directory)
        .output();
    let names = String::from_utf8(files.unwrap().stdout).unwrap();
    names.lines().map(str::to_owned).collect()
}

fn lfs_manifest(daemon: &TestDaemon, commit: &str) -> Manifest {
    let path = daemon.store().join("lfs/snapshots").join(commit);
    Manifest::parse(&fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_the_lfs_archive_checks_out_without_network() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;

    let archive = get_lfs_of(&daemon, &commit).await.bytes().await.unwrap();
    let clone = daemon.extract("snapshot.tar.zst").await;
    extract(&archive, &clone.join(".git"));

    fs::rename(
        daemon.root.path().join("upstream"),
        daemon.root.path().join("gone"),
    )
    .unwrap();
    assert!(
        fs::read_to_string(clone.join("small.bin"))
            .unwrap()
            .starts_with("version ")
    );
    git(&clone, ["lfs", "install", "--local"]);
    git(&clone, ["lfs", "checkout"]);
    for path in [
        "dir/large.bin",
        "dir/again.bin",
        "small.bin",
        "empty.bin",
        "plain.txt",
        "looks-like-a-pointer.txt",
    ] {
        assert!(
            fs::read(clone.join(path)).unwrap() == fs::read(work.join(path)).unwrap(),
            "{path}"
        );
    }
    assert_eq!(git(&clone, ["status", "--porcelain"]), "");
    // The smudge filter works offline, too.
    fs::remove_file(clone.join("dir/large.bin")).unwrap();
    git(&clone, ["checkout", "dir/large.bin"]);
    assert_eq!(
        fs::metadata(clone.join("dir/large.bin")).unwrap().len(),
        3 << 20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lfs_archive_has_each_object_once_and_nothing_else() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;

    let archive = get_lfs_of(&daemon, &commit).await.bytes().await.unwrap();

    let to = daemon.root.path().join("extracted/to");
    fs::create_dir_all(&to).unwrap();
    extract(&archive, &to);
    let oids: BTreeSet<_> = ["dir/large.bin", "small.bin"]
        .map(|path| oid_of(&work, path))
        .into();
    let paths = oids.iter().map(|oid| object_path(oid));
    assert_eq!(files_below(&to), paths.clone().collect());
    let (_, toc) = toc_of(&archive);
    assert_eq!(
        (toc.kind, toc.commit.to_string()),
        (ArchiveKind::Lfs, commit)
    );
    let objects = toc
        .segments
        .iter()
        .filter(|segment| segment.role == Role::LfsObject);
    let named = objects.map(|segment| segment.file.as_ref().unwrap().path.to_string());
    assert!(named.eq(paths));
    // The fetched objects are in the store, so no temporary copies are left.
    assert!(
        fs::read_dir(daemon.root.path().join("data/tmp"))
            .unwrap()
            .all(|entry| {
                !entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("lfs-")
            })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lfs_archive_is_served_like_the_other_archives() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let stable = get_lfs_of(&daemon, &first).await;

    let (etag, place) = (header(&stable, "etag"), header(&stable, "content-location"));
    let token = header(&stable, "x-cachew-snapshot-pin");
    assert_eq!(place, format!("/git/{REPO}/lfs-snapshot/{first}.tar.zst"));
    assert!(header(&stable, "cache-control").contains("no-cache"));
    let whole = stable.bytes().await.unwrap();
    assert_eq!(etag, format!("\"{}\"", toc_of(&whole).0));
    let immutable = daemon.get(&place, &[]).await;
    assert!(header(&immutable, "cache-control").contains("immutable"));
    assert_eq!(
        (header(&immutable, "etag"), immutable.bytes().await.unwrap()),
        (etag.clone(), whole.clone())
    );
    // A snapshot id with a refs digest gets the same archive, which depends only on the commit.
    let long = format!("/git/{REPO}/lfs-snapshot/{first}-0123456789abcdef.tar.zst");
    assert_eq!(daemon.get(&long, &[]).await.bytes().await.unwrap(), whole);
    for path in [&lfs(), &place] {
        let head = daemon.request(Method::HEAD, path, &[]).await;
        assert_eq!(
            (head.status().as_u16(), header(&head, "content-length")),
            (200, whole.len().to_string())
        );
        let part = daemon.get(path, &[("range", "bytes=1000-1999")]).await;
        assert_eq!(
            (part.status().as_u16(), part.bytes().await.unwrap()),
            (206, whole.slice(1000..2000))
        );
        assert_eq!(
            daemon.get(path, &[("if-none-match", &etag)]).await.status(),
            304
        );
    }
    let probe = daemon
        .get(&lfs(), &[("x-cachew-snapshot-pin", "probe")])
        .await;
    assert_eq!(
        header(&probe, "content-range"),
        format!("bytes */{}", whole.len())
    );

    write_file(&work.join("small.bin"), "changed\n");
    let second = commit_and_push(&work, "two");
    daemon.refresh().await;
    let newer = get_lfs_of(&daemon, &second).await;

    assert_ne!(header(&newer, "etag"), etag);
    let pinned = daemon
        .get(
            &lfs(),
            &[("x-cachew-snapshot-pin", &token), ("range", "bytes=0-")],
        )
        .await;
    assert_eq!(
        (pinned.status().as_u16(), pinned.bytes().await.unwrap()),
        (206, whole.clone())
    );
    assert_eq!(
        daemon.get(&lfs(), &[("if-match", &etag)]).await.status(),
        412
    );
    assert_eq!(daemon.get(&place, &[]).await.bytes().await.unwrap(), whole);
    let unknown = format!("/git/{REPO}/lfs-snapshot/{}.tar.zst", "12".repeat(20));
    assert_eq!(
        code(daemon.get(&unknown, &[]).await).await,
        (404, "no_snapshot".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_commit_later_only_new_objects_are_fetched_and_stored() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    get_lfs_of(&daemon, &first).await;
    let segments = || files_below(&daemon.store().join("lfs/segments"));
    let before = segments();
    // Upstream no longer has the old object, so the test fails if the daemon fetches it again.
    let known = object_below(&daemon.upstream(), &oid_of(&work, "dir/large.bin"));
    fs::remove_file(known).unwrap();

    write_file(&work.join("new.bin"), noise(2, 100_000));
    let second = commit_and_push(&work, "two");
    daemon.refresh().await;
    get_lfs_of(&daemon, &second).await;

    let new: Vec<_> = segments().difference(&before).cloned().collect();
    // One segment each for the object, its tar header, and the TOC with the seek table.
    assert_eq!(new.len(), 3, "{new:?}");
    let (old, new) = (
        lfs_manifest(&daemon, &first),
        lfs_manifest(&daemon, &second),
    );
    assert!(
        old.lfs_objects
            .iter()
            .all(|object| new.lfs_objects.contains(object))
    );
    assert_eq!((old.lfs_objects.len(), new.lfs_objects.len()), (2, 3));

    // Back at the first commit, its LFS archive is used again.
    git(&work, ["reset", "-q", "--hard", &first]);
    push_all(&work);
    daemon.refresh().await;
    get_lfs_of(&daemon, &first).await;
    assert_eq!(lfs_manifest(&daemon, &first), old);
}

fn push_all(work: &Path) {
    git(work, ["push", "-q", "--force", "--all"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_lfs_has_an_error_of_its_own() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    write_file(&work.join("a"), "a\n");
    commit_and_push(&work, "one");
    assert_eq!(
        code(daemon.request(Method::GET, &lfs(), &[]).await).await,
        (404, "no_lfs".to_owned())
    );
    assert_eq!(
        daemon.request(Method::HEAD, &lfs(), &[]).await.status(),
        404
    );
    assert!(daemon.status().await["lfs"].is_null());

    git(&work, ["lfs", "install", "--local"]);
    write_file(&work.join(".gitattributes"), "*.bin filter=lfs -text\n");
    write_file(&work.join("a.bin"), "a\n");
    let with = commit_and_push(&work, "two");
    daemon.refresh().await;
    get_lfs_of(&daemon, &with).await;

    fs::remove_file(work.join("a.bin")).unwrap();
    commit_and_push(&work, "three");
    daemon.refresh().await;
    let state = daemon.status_when(|status| status["lfs"].is_null()).await;
    assert_eq!(
        code(daemon.get(&lfs(), &[]).await).await,
        (404, "no_lfs".to_owned()),
        "{state}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lfs_objects_are_fetched_only_on_request() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let commit = commit_and_push(&work, "one");
    daemon.refresh().await;

    assert_eq!(
        code(
            daemon
                .request(
                    Method::GET,
                    &format!("/git/{REPO}/lfs-snapshot/{commit}.tar.zst"),
                    &[]
                )
                .await
        )
        .await,
        (404, "no_snapshot".to_owned())
    );
    assert_eq!(
        daemon.request(Method::HEAD, &lfs(), &[]).await.status(),
        404
    );
    daemon.refresh().await;
    assert!(!daemon.store().join("lfs").exists());

    // The first client gets the archive at once if making it doesn't take long.
    let response = daemon.get(&lfs(), &[]).await;
    assert_eq!(response.status(), 200);
    let published = &daemon.status().await["lfs"]["published"];
    assert_eq!(published["snapshot"], commit);
    assert_eq!(published["bytes"], response.content_length().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_lfs_archive_survives_a_restart_and_is_updated() {
    let daemon = TestDaemon::start().await;
    let work = create_lfs_upstream(&daemon);
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    get_lfs_of(&daemon, &first).await;
    let root = daemon.stop().await;
    let daemon = TestDaemon::start_in(root, |_| {}).await;

    let head = daemon.request(Method::HEAD, &lfs(), &[]).await;

    assert_eq!(header(&head, "x-cachew-snapshot-commit"), first);
    write_file(&work.join("small.bin"), "changed\n");
    let second = commit_and_push(&work, "two");
    daemon.refresh().await;
    let is_there = |status: &Value| status["lfs"]["published"]["snapshot"] == second;
    daemon.status_when(is_there).await;
}
