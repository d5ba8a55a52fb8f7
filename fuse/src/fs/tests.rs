//! Tests of each call's answer, without a kernel.

use std::sync::Arc;

use cachewfs_format::RepoName;

use super::inode::ROOT_INO;
use super::{Attr, FileKind, Fs, Ino};
use crate::error::FsError;
use crate::testing::{Bench, COMMIT, REPO, archive, archive_with_index, bench, index_parts};

const FILES: [(&str, u32, &[u8]); 5] = [
    ("a-b", 0o100_644, b"dash"),
    ("a/deep/file", 0o100_755, b"#!/bin/sh\n"),
    ("a/link", 0o120_000, b"deep/file"),
    ("sub", 0o160_000, b""),
    ("z name\n", 0o100_644, b"odd"),
];

/// Walks a path of names from the root.
async fn walk(fs: &Fs, path: &[&str]) -> Result<Attr, FsError> {
    let mut found = fs.getattr(ROOT_INO)?;
    for name in path {
        found = fs.lookup(found.ino, name.as_bytes()).await?;
    }
    Ok(found)
}

async fn in_repo(fs: &Fs, path: &[&str]) -> Result<Attr, FsError> {
    let repo: Vec<&str> = REPO.split('/').chain(path.iter().copied()).collect();
    walk(fs, &repo).await
}

async fn content(fs: &Fs, ino: Ino) -> Vec<u8> {
    let handle = fs.open(fs.file(ino).unwrap());
    let bytes = fs.read((ino, handle), 0..1 << 20).await.unwrap();
    fs.release(handle);
    bytes
}

async fn names(fs: &Fs, ino: Ino) -> Vec<String> {
    let handle = fs.opendir(ino).unwrap();
    let listing = fs.listing((ino, handle), 0).await.unwrap();
    fs.releasedir(handle);
    listing
        .entries
        .iter()
        .map(|entry| String::from_utf8(entry.name.clone()).unwrap())
        .collect()
}

fn sample() -> Bench {
    bench(archive("main", b"PACK of the first snapshot", &FILES))
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_the_work_tree_of_the_commit() {
    let Bench { fs, .. } = &sample();

    let root = in_repo(fs, &[]).await.unwrap();
    let file = in_repo(fs, &["a", "deep", "file"]).await.unwrap();
    let link = in_repo(fs, &["a", "link"]).await.unwrap();

    assert_eq!(
        names(fs, root.ino).await,
        [".", "..", ".git", "a-b", "a", "sub", "z name\n"]
    );
    assert_eq!((file.mode, file.size), (0o755, 10));
    assert_eq!(content(fs, file.ino).await, b"#!/bin/sh\n");
    assert_eq!(link.kind, FileKind::Symlink);
    assert_eq!(fs.readlink(link.ino).await.unwrap(), b"deep/file");
    assert_eq!(
        in_repo(fs, &["sub"]).await.unwrap().kind,
        FileKind::Directory
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_its_own_git_directory_and_nothing_that_runs() {
    let Bench { fs, .. } = &sample();

    let git = in_repo(fs, &[".git"]).await.unwrap();
    let config = in_repo(fs, &[".git", "config"]).await.unwrap();
    let refs = in_repo(fs, &[".git", "packed-refs"]).await.unwrap();
    let alternates = in_repo(fs, &[".git", "objects", "info", "alternates"])
        .await
        .unwrap();

    let shown = [
        "HEAD",
        "config",
        "info",
        "objects",
        "packed-refs",
        "refs",
        "index",
    ];
    assert_eq!(names(fs, git.ino).await[2..], shown);
    let config = String::from_utf8(content(fs, config.ino).await).unwrap();
    assert!(config.contains("url = https://host/org/repo\n") && !config.contains("hooks"));
    let refs = String::from_utf8(content(fs, refs.ino).await).unwrap();
    assert!(
        refs.ends_with(&format!("{COMMIT} refs/heads/main\n")),
        "{refs}"
    );
    let expected = b"../cachewfs/objects\n";
    assert_eq!(content(fs, alternates.ino).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_takes_only_its_entries_from_the_archive() {
    let Bench { fs, .. } = &sample();

    let index = in_repo(fs, &[".git", "index"]).await.unwrap();
    let index = content(fs, index.ino).await;

    let entries = index_parts(&FILES).concat();
    let (header, rest) = index.split_at(12);
    assert_eq!(header, b"DIRC\0\0\0\x02\0\0\0\x05");
    let rest = rest.strip_prefix(&*entries).unwrap();
    assert!(rest.starts_with(b"TREE") && !rest.windows(4).any(|name| name == b"link"));
    assert_ne!(rest[rest.len() - 20..], [0; 20]);
}

/// For example, an entry with extended flags has its path two bytes later for git than for others.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_git_reads_differently_is_not_shown() {
    // Flags, length of the path, padding, mode.
    for (at, bits) in [(60, 0x40), (60, 0x80), (61, 4), (65, 1), (27, 0o20)] {
        let mut parts = index_parts(&FILES);
        parts[0][at] ^= bits;
        let Bench { fs, .. } = &bench(archive_with_index("main", b"pack", &FILES, &parts));

        let index = in_repo(fs, &[".git", "index"]).await;
        assert!(matches!(index, Err(FsError::Load(_))), "{at}: {index:?}");
        let file = in_repo(fs, &["a-b"]).await;
        assert!(matches!(file, Err(FsError::Load(_))), "{at}: {file:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_up_git_loads_no_index() {
    let Bench { fs, source, .. } = &sample();

    in_repo(fs, &[".git", "HEAD"]).await.unwrap();

    let repository = fs.repositories().resolved().remove(0);
    assert!(repository.view().generation.loaded_work_tree().is_none());
    in_repo(fs, &["a-b"]).await.unwrap();
    let requests = source.take_requests();
    // One request each for the refs, the tip pack, its index and the git index. All are small.
    assert!(requests.len() <= 4, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_found_without_loading_a_long_index() {
    // Names that sort just before and after '/', and long paths, which make a long index.
    let deep = "a-directory-below-others/".repeat(140);
    let mut paths: Vec<String> = vec!["a".into(), "b-".into(), "b/c".into(), "b0".into()];
    paths.extend((0..320).map(|number| format!("{number:03}/{deep}file")));
    paths.extend((0..100).map(|number| format!("{number:03}-")));
    paths.sort();
    let files: Vec<_> = paths
        .iter()
        .map(|path| (path.as_str(), 0o100_644, path.as_bytes()))
        .collect();
    let Bench { fs, source, .. } = &bench(archive("main", b"PACK", &files));
    in_repo(fs, &[".git", "HEAD"]).await.unwrap();
    let generation = || fs.repositories().resolved().remove(0).view().generation;
    let is_loaded = || generation().loaded_work_tree().is_some();
    source.take_requests();

    for name in ["a", "b-", "b0", "000-", "099-"] {
        let file = in_repo(fs, &[name]).await.unwrap();
        assert_eq!(content(fs, file.ino).await, name.as_bytes());
    }
    for name in [".mailmap", "a-", "c", "zz"] {
        let error = in_repo(fs, &[name]).await.unwrap_err();
        assert!(matches!(error, FsError::NoEntry), "{name}: {error}");
    }
    assert!(!is_loaded());
    let requests = source.take_requests();
    assert!(requests.len() < 100, "{} requests", requests.len());

    let directory = in_repo(fs, &["b"]).await.unwrap();
    assert_eq!(directory.kind, FileKind::Directory);
    assert!(is_loaded());
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_in_the_bare_repository_at_each_of_its_paths() {
    let Bench { fs, source, .. } = &sample();
    let mut found = Vec::new();

    for path in [
        &["host", "org", "repo.git"][..],
        &["host", "org", "repo", ".git", "cachewfs"],
        &[".objects", "host", "org", "repo"],
    ] {
        let bare = walk(fs, path).await.unwrap();
        let in_bare = ["HEAD", "config", "info", "objects", "packed-refs", "refs"];
        assert_eq!(names(fs, bare.ino).await[2..], in_bare, "{path:?}");
        assert!(bare.is_top_of_repository);
        let packs = walk(fs, &[path, &["objects", "pack"]].concat())
            .await
            .unwrap();
        let names = names(fs, packs.ino).await;
        assert_eq!(names.len(), 4, "{names:?}");
        let pack = fs.lookup(packs.ino, names[3].as_bytes()).await.unwrap();
        assert_eq!(content(fs, pack.ino).await, b"PACK of the first snapshot");
        assert_eq!(pack.mtime, 7);
        found.push((packs.ino, pack.ino));
    }

    assert!(found[0].0 != found[1].0 && found[1].0 != found[2].0);
    assert!(found[0].1 == found[1].1 && found[1].1 == found[2].1);
    // A program that reads every file must not fetch the packs.
    let organisation = walk(fs, &["host", "org"]).await.unwrap();
    assert_eq!(names(fs, organisation.ino).await[2..], ["repo"]);
    assert_eq!(source.take_asked(), ["hosts (Demand)", "host/org", REPO]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bare_repository_of_an_absent_one_is_absent_without_a_second_request() {
    let Bench { fs, source, .. } = &sample();

    for path in [
        &["host", "org", "absent.git"][..],
        &["host", "org", "absent"],
        &["host", "org.git"],
        &["host", "org", ".git"],
        &["host", "org", "repo.git.git"],
        &["host", "org", "repo.GIT"],
        &["host", "org", "repo.git", ".git"],
        &[".objects", "host", "org", "repo.git"],
    ] {
        let error = walk(fs, path).await.unwrap_err();
        assert!(matches!(error, FsError::NoEntry), "{path:?}: {error}");
    }

    let asked = ["hosts (Demand)", "host/org", "host/org/absent", REPO];
    assert_eq!(source.take_asked(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_name_is_no_entry() {
    let Bench { fs, .. } = &sample();

    for path in [
        &["a", "x"][..],
        &["a-b2"],
        &[".git", "hooks"],
        &["sub", "x"],
        &[".git", "index.lock"],
    ] {
        let error = in_repo(fs, path).await.unwrap_err();
        assert!(matches!(error, FsError::NoEntry), "{path:?}: {error}");
    }
    for path in [&["other"][..], &["host", "-x"], &["host", "a b"]] {
        let error = walk(fs, path).await.unwrap_err();
        assert!(matches!(error, FsError::NoEntry), "{path:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_snapshot_switches_as_a_whole_and_open_files_keep_theirs() {
    let Bench { fs, source, .. } = &sample();
    let old_file = in_repo(fs, &["a-b"]).await.unwrap();
    let old_handle = fs.open(fs.file(old_file.ino).unwrap());
    let kept = in_repo(fs, &["a", "deep", "file"]).await.unwrap();
    let packs = walk(fs, &[".objects", "host", "org", "repo", "objects", "pack"])
        .await
        .unwrap();
    let mut files = FILES;
    files[0] = ("a-b", 0o100_755, b"new!");

    source.publish(archive("next", b"PACK of the second snapshot", &files));
    let repositories = fs.repositories();
    let repository = repositories.resolved().remove(0);
    repositories.catch_up(&repository).await.unwrap();

    let new_file = in_repo(fs, &["a-b"]).await.unwrap();
    let head = in_repo(fs, &[".git", "HEAD"]).await.unwrap();
    assert_eq!(content(fs, new_file.ino).await, b"new!");
    assert_eq!(content(fs, head.ino).await, b"ref: refs/heads/next\n");
    assert_ne!(new_file.ino, old_file.ino);
    assert_eq!(
        in_repo(fs, &["a", "deep", "file"]).await.unwrap().ino,
        kept.ino
    );
    assert_eq!(
        fs.read((old_file.ino, old_handle), 0..100).await.unwrap(),
        b"dash"
    );
    // Both packs with their indexes, because the old ones stay for a while.
    assert_eq!(names(fs, packs.ino).await.len(), 2 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_snapshot_costs_one_request_and_changes_nothing() {
    let Bench { fs, source, .. } = &sample();
    in_repo(fs, &["a-b"]).await.unwrap();
    source.take_requests();
    let repositories = fs.repositories();
    let repository = repositories.resolved().remove(0);
    let before = repository.view().generation;

    repositories.catch_up(&repository).await.unwrap();

    assert!(Arc::ptr_eq(&before, &repository.view().generation));
    assert_eq!(source.take_requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_inodes_are_unknown() {
    let Bench { fs, .. } = &sample();
    let file = in_repo(fs, &["a-b"]).await.unwrap();

    fs.forget(file.ino, 1);

    assert!(matches!(
        fs.getattr(file.ino),
        Err(FsError::UnknownInode { .. })
    ));
}

/// Returns the inodes of a directory and of everything below it, each with its path.
async fn all_inodes(fs: &Fs, ino: Ino, path: &str) -> Vec<(Ino, String)> {
    let mut found = vec![(ino, path.to_owned())];
    if fs.getattr(ino).unwrap().kind != FileKind::Directory {
        return found;
    }
    for name in names(fs, ino).await {
        if name != "." && name != ".." {
            let child = fs.lookup(ino, name.as_bytes()).await.unwrap();
            let path = format!("{path}/{name}");
            found.extend(Box::pin(all_inodes(fs, child.ino, &path)).await);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_after_a_killed_one_finds_all_inodes_of_what_it_shows() {
    let (old, new) = (sample(), sample());
    let repo = RepoName::parse(REPO).unwrap();
    for bench in [&old, &new] {
        bench.repositories.resolve(&repo).await.unwrap();
        bench.repositories.hosts().await.unwrap();
    }
    // Listings lack the last three.
    let repo_path: Vec<_> = REPO.split('/').collect();
    let bare = format!("{REPO}.git");
    let mut known = Vec::new();
    for path in [
        Vec::new(),
        vec![".objects"],
        bare.split('/').collect(),
        [&repo_path[..], &[".git", "cachewfs"]].concat(),
    ] {
        let root = walk(&old.fs, &path).await.unwrap();
        known.extend(all_inodes(&old.fs, root.ino, &path.join("/")).await);
    }
    // The index is in the cache then, as it is after a crash.
    in_repo(&new.fs, &["a-b"]).await.unwrap();

    new.fs.assume_inodes().await;

    assert!(known.iter().any(|(_, path)| path.ends_with("/a/deep/file")));
    assert!(known.iter().any(|(_, path)| path.ends_with("/.git/index")));
    for (ino, path) in known {
        assert_eq!(
            new.fs.getattr(ino).map_err(|error| error.to_string()),
            Ok(old.fs.getattr(ino).unwrap()),
            "{path}"
        );
    }
}
