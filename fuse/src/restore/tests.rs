//! Restores of archives in memory: good ones, and those of a hostile server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use cachewfs_format::api::EnsureRefsRequest;
use tempfile::TempDir;

use super::{Restore, RestoreError, RestoreOptions, RestorePlace};
use crate::cache::Cache;
use crate::segment::{Backend, Segments};
use crate::testing::scripted::{RangeFault, ScriptedSource};
use crate::testing::{self, Archive, REPO};

const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_000;

/// Restores an archive below a new directory.
async fn restore(archive: Archive, faults: Vec<RangeFault>) -> (TempDir, Result<(), RestoreError>) {
    let directory = tempfile::tempdir().unwrap();
    let source = ScriptedSource::new(archive.bytes, archive.snapshot, archive.etag);
    source.fail_with(faults);
    let cache_dir = directory.path().join("cache");
    let cache = Cache::open(&cache_dir, u64::MAX).unwrap();
    let backend = Backend::new(source, cache, Arc::default(), Duration::from_secs(5));
    let options = RestoreOptions {
        repo: RepoName::parse(REPO).unwrap(),
        daemons: Vec::new(),
        token_file: None,
        cache_dir,
        is_cache_shared: false,
        is_bare: false,
        wanted: EnsureRefsRequest::default(),
    };
    let tree = directory.path().join("tree");
    let git_dir = tree.join(".git");
    std::fs::create_dir_all(&git_dir).unwrap();
    let place = RestorePlace {
        work_tree: Some(tree),
        git_dir,
    };
    let outcome = async {
        let segments = Arc::new(Segments::new(Arc::new(backend)));
        let restore = Restore::find(&options, segments, |_| ()).await?;
        restore.write(&place, |_| ()).await.map(drop)
    };
    let outcome = outcome.await;
    (directory, outcome)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_index_and_packs_are_written_and_nothing_that_runs() {
    use std::os::unix::fs::PermissionsExt as _;
    let files: [(&str, u32, &[u8]); 4] = [
        ("a/b", FILE, b"one"),
        ("a/link", SYMLINK, b"../elsewhere"),
        ("empty", FILE, b""),
        ("run", EXECUTABLE, b"#!"),
    ];
    let faults = vec![RangeFault::Corrupt(3), RangeFault::Cut(2)];

    let (directory, outcome) = restore(testing::archive("main", b"pack", &files), faults).await;

    outcome.unwrap();
    let tree = directory.path().join("tree");
    assert_eq!(names(&tree), [".git", "a", "empty", "run"]);
    assert_eq!(std::fs::read(tree.join("a/b")).unwrap(), b"one");
    assert_eq!(std::fs::read(tree.join("empty")).unwrap(), b"");
    let target = std::fs::read_link(tree.join("a/link")).unwrap();
    assert_eq!(target, Path::new("../elsewhere"));
    let mode = |name| tree.join(name).metadata().unwrap().permissions().mode() & 0o100;
    assert_eq!((mode("run"), mode("empty")), (0o100, 0));
    // The archive also has a hook, and a configuration that names one.
    assert_eq!(names(&tree.join(".git")), ["index", "objects"]);
    let packs = names(&tree.join(".git/objects/pack"));
    let ends: Vec<_> = packs
        .iter()
        .filter_map(|name| name.rsplit('.').next())
        .collect();
    assert_eq!(ends, ["idx", "keep", "pack"]);
}

#[tokio::test]
async fn paths_that_leave_the_work_tree_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().display().to_string();
    let hostile: [&[(&str, u32, &[u8])]; 8] = [
        &[(".git/hooks/post-checkout", EXECUTABLE, b"#!")],
        &[("a/.GIT/config", FILE, b"x")],
        &[("git~1/config", FILE, b"x")],
        &[(".gitmodules", SYMLINK, b"x")],
        // Through a symbolic link: in one run, and with another run between them.
        &[("a", SYMLINK, target.as_bytes()), ("a/b", FILE, b"x")],
        &[
            ("a", SYMLINK, target.as_bytes()),
            ("a-", FILE, b""),
            ("a-b", FILE, b""),
            ("a/b", FILE, b"x"),
        ],
        &[("a", FILE, b"1"), ("a", FILE, b"2")],
        &[("b", FILE, b"1"), ("a", FILE, b"2")],
    ];
    for files in hostile {
        // The index is one that git would write, as many parts as runs.
        let fine: Vec<(String, u32, &[u8])> = (0..files.len())
            .map(|number| (format!("f{number}"), FILE, &b""[..]))
            .collect();
        let fine: Vec<_> = fine
            .iter()
            .map(|(path, mode, bytes)| (path.as_str(), *mode, *bytes))
            .collect();
        let index = testing::index_parts(&fine);
        let archive = testing::archive_with_index("main", b"pack", files, &index);

        let (directory, outcome) = restore(archive, Vec::new()).await;

        assert!(
            matches!(outcome, Err(RestoreError::Path { .. })),
            "{files:?}: {outcome:?}"
        );
        let git = names(&directory.path().join("tree/.git"));
        assert!(git.iter().all(|name| name == "index"), "{git:?}");
        assert!(names(outside.path()).is_empty());
    }
}

#[tokio::test]
async fn an_index_that_git_would_not_write_is_refused() {
    let files: [(&str, u32, &[u8]); 1] = [("a", FILE, b"x")];
    let bad: [(&str, u32, &[u8]); 1] = [(".git/config", FILE, b"x")];
    for index in [testing::index_parts(&bad), Vec::new()] {
        let archive = testing::archive_with_index("main", b"pack", &files, &index);

        let (directory, outcome) = restore(archive, Vec::new()).await;

        assert!(outcome.is_err());
        assert!(!directory.path().join("tree/.git/index").exists());
    }
}
