//! Tests of a real mount that shows a scripted archive.

use std::ffi::OsStr;
use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, StatVfsMountFlags};
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{Adapter, ServedSession, start};
use crate::invalidate::Invalidator;
use crate::options::MountOptions;
use crate::testing::{self, Archive, Bench, REPO, archive, bench, bench_with_cache};

/// A mount that is unmounted when dropped.
struct Mounted {
    served: ServedSession,
    repo: PathBuf,
    bench: Arc<Bench>,
    _directory: TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.served.unmount().ok();
    }
}

/// Mounts `archive`. Returns `None`, and prints that the test is skipped, on a machine without
/// FUSE.
async fn mounted(archive: Archive) -> Option<Mounted> {
    mounted_with(bench(archive), |_| {}).await
}

/// Mounts what `bench` shows, with options that `change` makes.
async fn mounted_with(bench: Bench, change: fn(&mut MountOptions)) -> Option<Mounted> {
    if !testing::can_mount() {
        return None;
    }
    let directory = TempDir::new().unwrap();
    let bench = Arc::new(bench);
    let mut options = bench.fs.repositories().options.clone();
    options.mount_point = directory.path().canonicalize().unwrap();
    change(&mut options);
    let adapter = Adapter::new(Arc::clone(&bench.fs), Handle::current(), &options);
    let repo = options.mount_point.join(REPO);
    let served = tokio::task::spawn_blocking(move || start(adapter, &options).unwrap());
    let served = served.await.unwrap();
    let invalidator = Invalidator::new(served.notifier.clone());
    bench
        .fs
        .repositories()
        .invalidator
        .set(invalidator)
        .unwrap();
    Some(Mounted {
        served,
        repo,
        bench,
        _directory: directory,
    })
}

/// Runs `work`, which blocks on the mount, outside the runtime threads that serve the mount.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

const FILES: [(&str, u32, &[u8]); 3] = [
    ("dir/run", 0o100_755, b"#!/bin/sh\nexit 0\n"),
    ("link", 0o120_000, b"dir/run"),
    ("text", 0o100_644, b"hello\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_and_run_files_of_the_mount() {
    let Some(mount) = mounted(archive("main", b"PACK", &FILES)).await else {
        return;
    };
    let repo = mount.repo.clone();

    blocking(move || {
        assert_eq!(fs::read(repo.join("text")).unwrap(), b"hello\n");
        assert_eq!(
            fs::read_link(repo.join("link")).unwrap(),
            PathBuf::from("dir/run")
        );
        assert!(
            std::process::Command::new(repo.join("link"))
                .status()
                .unwrap()
                .success()
        );
        let mut names: Vec<_> = fs::read_dir(&repo)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".git", "dir", "link", "text"].map(OsStr::new));
        assert_eq!(fs::read_dir(repo.join("dir")).unwrap().count(), 1);
        assert!(!repo.join("nothing").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written_and_the_mount_table_says_so() {
    let Some(mount) = mounted(archive("main", b"PACK", &FILES)).await else {
        return;
    };
    let repo = mount.repo.clone();

    blocking(move || {
        let read_only = |outcome: std::io::Result<()>| {
            assert_eq!(
                outcome.unwrap_err().kind(),
                std::io::ErrorKind::ReadOnlyFilesystem
            );
        };
        let text = repo.join("text");
        read_only(fs::File::create(repo.join("new")).map(drop));
        read_only(fs::File::options().write(true).open(&text).map(drop));
        read_only(fs::create_dir(repo.join("new")));
        read_only(fs::remove_file(&text));
        read_only(fs::remove_dir(repo.join("dir")));
        read_only(fs::rename(&text, repo.join("other")));
        read_only(symlink("x", repo.join("new")));
        read_only(fs::hard_link(&text, repo.join("new")));
        let file = fs::File::open(&text).unwrap();
        read_only(file.set_modified(std::time::SystemTime::now()));
        read_only(rustix::fs::access(&text, Access::WRITE_OK).map_err(std::io::Error::from));
        let flags = rustix::fs::statvfs(&text).unwrap().f_flag;
        assert!(
            flags.contains(StatVfsMountFlags::RDONLY) && !flags.contains(StatVfsMountFlags::NOEXEC)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_only_from_files_that_are_programs_and_not_with_noexec() {
    let noexec = |options: &mut MountOptions| options.noexec = true;
    let Some(with_programs) = mounted(archive("main", b"PACK", &FILES)).await else {
        return;
    };
    let without = mounted_with(bench(archive("main", b"PACK", &FILES)), noexec);
    let without = without.await.unwrap();

    let (repo, of_noexec) = (with_programs.repo.clone(), without.repo.clone());
    blocking(move || {
        let may_run = |path: PathBuf| rustix::fs::access(path, Access::EXEC_OK);
        assert_eq!(may_run(repo.join("dir/run")), Ok(()));
        assert_eq!(may_run(repo.join("dir")), Ok(()));
        assert_eq!(may_run(repo.join("text")), Err(Errno::ACCESS));
        assert_eq!(fs::read(of_noexec.join("dir/run")).unwrap(), FILES[0].2);
        let refused = std::process::Command::new(of_noexec.join("dir/run")).status();
        assert_eq!(
            refused.unwrap_err().kind(),
            std::io::ErrorKind::PermissionDenied
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_ask_of_any_file_has_the_usual_answers() {
    let Some(mount) = mounted(archive("main", b"PACK", &FILES)).await else {
        return;
    };
    let repo = mount.repo.clone();

    blocking(move || {
        let text = fs::File::open(repo.join("text")).unwrap();
        assert!(!text.is_terminal());
        let errno = std::io::Error::last_os_error().raw_os_error();
        assert_eq!(errno, Some(Errno::NOTTY.raw_os_error()));
        let mut names = [0; 64];
        assert_eq!(rustix::fs::flistxattr(&text, &mut names), Ok(0));
        assert_eq!(rustix::fs::flistxattr(&text, &mut [0_u8; 0]), Ok(0));
        // Two subdirectories: any number but 1 would be wrong for one of these directories.
        for directory in [&repo, &repo.join("dir")] {
            assert_eq!(fs::metadata(directory).unwrap().nlink(), 1);
        }
        // `df` leaves a filesystem without blocks out.
        assert_eq!(rustix::fs::statvfs(&repo).unwrap().f_blocks, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_passthrough_a_file_has_the_same_bytes_and_is_not_evicted_while_open() {
    let pack: Vec<u8> = (0..=255_u8).cycle().take(3 << 20).collect();
    // A cache that is smaller than the pack.
    let bench = bench_with_cache(archive("main", &pack, &FILES), 2 << 20);
    let Some(mount) = mounted_with(bench, |_| {}).await else {
        return;
    };
    let packs = mount.repo.join(".git/cachewfs/objects/pack");

    let expected = pack.clone();
    let open = blocking(move || {
        let found = fs::read_dir(packs)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let path = found
            .into_iter()
            .find(|path| path.extension() == Some("pack".as_ref()));
        let path = path.unwrap();
        // The first read fetches all chunks. The later opens find a complete file.
        for _ in 0..3 {
            assert!(fs::read(&path).unwrap() == expected, "wrong bytes");
        }
        fs::File::open(&path).unwrap()
    })
    .await;

    let repositories = mount.bench.fs.repositories();
    let generation = repositories.resolved().remove(0).view().generation;
    let mut segments = generation.segments.iter();
    let pack = segments.find(|segment| segment.len() == 3 << 20).unwrap();
    assert!(pack.is_complete_on_disk());
    // Eviction would free no space while the kernel has the cache's file open.
    repositories.segments.evict();
    assert!(pack.is_complete_on_disk());
    drop(open);
    let evicted = async {
        while pack.is_complete_on_disk() {
            tokio::task::yield_now().await;
            repositories.segments.evict();
        }
    };
    let evicted = tokio::time::timeout(Duration::from_secs(10), evicted).await;
    evicted.expect("a closed file is evicted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_learns_of_a_new_snapshot() {
    let Some(mount) = mounted(archive("main", b"PACK 1", &FILES)).await else {
        return;
    };
    let repo = mount.repo.clone();
    let mut files = FILES.to_vec();
    files[2] = ("text", 0o100_644, b"HELLO\n");
    files.push((("zz/new"), 0o100_644, b"new\n"));
    let (text, new) = (repo.join("text"), repo.join("zz/new"));
    let (text_before, new_before) = (text.clone(), new.clone());
    blocking(move || {
        assert_eq!(fs::read(text_before).unwrap(), b"hello\n");
        assert!(!new_before.exists() && !new_before.parent().unwrap().exists());
        assert_eq!(
            fs::read(repo.join(".git/HEAD")).unwrap(),
            b"ref: refs/heads/main\n"
        );
    })
    .await;

    mount
        .bench
        .source
        .publish(archive("next", b"PACK 2", &files));
    let repositories = Arc::clone(mount.bench.fs.repositories());
    let repository = repositories.resolved().remove(0);
    repositories.catch_up(&repository).await.unwrap();

    let repo = mount.repo.clone();
    blocking(move || {
        assert_eq!(fs::read(text).unwrap(), b"HELLO\n");
        assert_eq!(fs::read(new).unwrap(), b"new\n");
        assert_eq!(
            fs::read(repo.join(".git/HEAD")).unwrap(),
            b"ref: refs/heads/next\n"
        );
        assert_eq!(fs::read_dir(&repo).unwrap().count(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_learns_of_files_that_were_found_without_the_index() {
    // Long paths make the index long enough to be searched instead of loaded.
    let deep = "a-directory-below-others/".repeat(140);
    let names: Vec<_> = (0..320).map(|n| format!("{n:03}/{deep}file")).collect();
    let text = |content: &'static [u8]| ("a", 0o100_644, content);
    let with = |branch, first: &[(&'static str, u32, &'static [u8])]| {
        let rest = names
            .iter()
            .map(|name| (name.as_str(), 0o100_644, &b""[..]));
        let mut files: Vec<_> = first.iter().copied().chain(rest).collect();
        files.sort_by_key(|file| file.0);
        archive(branch, b"PACK", &files)
    };
    let Some(mount) = mounted(with("main", &[text(b"before")])).await else {
        return;
    };
    let repositories = Arc::clone(mount.bench.fs.repositories());
    let (file, mailmap) = (mount.repo.join("a"), mount.repo.join(".mailmap"));
    let (files, later) = ((file.clone(), mailmap.clone()), (file, mailmap));
    blocking(move || {
        assert_eq!(fs::read(files.0).unwrap(), b"before");
        assert!(!files.1.exists());
    })
    .await;
    let repository = repositories.resolved().remove(0);
    let before = repository.view().generation;
    assert!(before.loaded_work_tree().is_none());

    let new = [text(b"and after"), (".mailmap", 0o100_644, b"who")];
    mount.bench.source.publish(with("next", &new));
    repositories.catch_up(&repository).await.unwrap();

    blocking(move || {
        assert_eq!(fs::read(later.0).unwrap(), b"and after");
        assert_eq!(fs::read(later.1).unwrap(), b"who");
    })
    .await;
    let now = repository.view().generation;
    assert!(!Arc::ptr_eq(&before, &now) && now.loaded_work_tree().is_none());
}
