//! A mount shows the bytes and times of a plain clone, also after unusual changes of upstream.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cachewfs_tests::{Dice, Site, can_mount, git, wait_until};

fn mtime(path: &Path) -> i64 {
    fs::symlink_metadata(path).unwrap().mtime()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Attributes change the checked-out files while the ids of their git blobs stay the same.
#[test]
fn changed_attributes_show_in_files_that_were_already_read() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    let files = ["top.txt", "sub/f.txt", "id.dat", "wide.dat", "plain.dat"];
    repo.write("top.txt", b"hello\nworld\n");
    repo.write("sub/f.txt", b"hello\nworld\n");
    repo.write("id.dat", b"$Id$\n");
    repo.write("wide.dat", b"wide\n");
    repo.write("plain.dat", b"plain\n");
    repo.write(".gitattributes", b"id.dat ident\n");
    repo.commit("before");
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    for file in files {
        fs::read(mounted.join(file)).unwrap();
    }
    let unchanged = fs::metadata(mounted.join("plain.dat")).unwrap();
    let before = mtime(&mounted.join("top.txt"));

    let change = |attributes: &str| {
        repo.write(".gitattributes", attributes.as_bytes());
        git(&repo.work, &["add", ".gitattributes"]);
        git(&repo.work, &["commit", "-q", "-m", attributes]);
        repo.push();
        mount.cli(&["refresh", "local/project"]);
    };
    change("*.txt text eol=crlf\nwide.dat working-tree-encoding=UTF-16BE\n");

    let plain = site.plain_clone(&repo, "after");
    for file in files {
        let (shown, right) = (mounted.join(file), plain.join(file));
        assert_eq!(fs::read(shown).unwrap(), fs::read(right).unwrap(), "{file}");
    }
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    assert!(mtime(&mounted.join("top.txt")) > before);
    // A file whose bytes didn't change keeps its inode and its time.
    let now = fs::metadata(mounted.join("plain.dat")).unwrap();
    assert_eq!(
        (now.ino(), now.mtime()),
        (unchanged.ino(), unchanged.mtime())
    );
    // Now the bytes of one file change, but not its length.
    change("wide.dat working-tree-encoding=UTF-16LE\n");

    let plain = site.plain_clone(&repo, "same-length");
    for file in files {
        let (shown, right) = (mounted.join(file), plain.join(file));
        assert_eq!(fs::read(shown).unwrap(), fs::read(right).unwrap(), "{file}");
    }
}

#[test]
fn a_file_that_changed_has_a_later_time_and_no_other_has() {
    if !can_mount() {
        return;
    }
    let seconds = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap()
    };
    let site = Site::default();
    let mut repo = site.repo("project");
    repo.write("changes", b"x = 1\n");
    repo.write("stays", b"y = 1\n");
    repo.write("sub/stays", &Dice::new(1).noise(5 << 20));
    repo.commit("one");
    repo.push();
    let began = seconds() - 2;
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let times = || ["changes", "stays", "sub/stays"].map(|file| mtime(&mounted.join(file)));
    let first = times();
    assert!(
        first
            .iter()
            .all(|&time| (began..=seconds()).contains(&time)),
        "{first:?}"
    );
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    let fetched = mount.traffic("fetched_bytes");

    // Several pushes within one second: each must still give the file a later time.
    let mut last = first[0];
    for content in ["x = 2\n", "x = 1\n", "x = 3\n"] {
        repo.write("changes", content.as_bytes());
        let commit = repo.commit(content);
        repo.push();
        mount.cli(&["refresh", "local/project"]);
        wait_until("the mount shows the push", || {
            git(&mounted, &["rev-parse", "HEAD"]).trim() == commit
        });

        let now = times();
        assert!(now[0] > last, "{content}: {} is not after {last}", now[0]);
        assert_eq!(now[1..], first[1..]);
        assert_eq!(
            fs::read(mounted.join("changes")).unwrap(),
            content.as_bytes()
        );
        assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
        last = now[0];
    }
    // `git status` found the large file clean without reading it.
    assert!(mount.traffic("fetched_bytes") - fetched < 1 << 20);
    let index = mtime(&mounted.join(".git/index"));
    assert!(
        index > last,
        "git would read files that are not older than the index"
    );
}

/// libgit2 also compares inodes and owners with those in the index.
#[test]
fn the_status_of_libgit2_reads_no_file() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    let mut dice = Dice::new(7);
    for number in 0..32 {
        repo.write(format!("d{}/n{number}", number % 3), &dice.noise(64 << 10));
    }
    repo.write("run", b"#!/bin/sh\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(repo.work.join("run"), executable).unwrap();
    std::os::unix::fs::symlink("run", repo.work.join("link")).unwrap();
    repo.commit("files");
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    let fetched = mount.traffic("fetched_bytes");

    let opened = git2::Repository::open(&mounted).unwrap();
    let statuses = opened.statuses(None).unwrap();

    assert_eq!(statuses.len(), 0);
    let fetched = mount.traffic("fetched_bytes") - fetched;
    assert!(fetched < 64 << 10, "{fetched} bytes were fetched");
}

#[test]
fn a_commit_that_git_refuses_shows_no_work_tree_and_the_next_one_does() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    repo.write("d/f", b"1\n");
    repo.write("ok", b"ok\n");
    repo.commit("good");
    repo.push();
    let bad = repo.commit_with_refused_tree();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    assert_eq!(names_in(&mounted), [".git", "d", "ok"]);
    assert_eq!(names_in(&mounted.join("d")), ["f"]);
    assert_eq!(fs::read(mounted.join("ok")).unwrap(), b"ok\n");
    assert!(!mounted.join("new").exists());
    let show = |commit: &str| {
        git(
            &repo.work,
            &["push", "-q", "--force", "origin", &format!("{commit}:main")],
        );
        mount.cli(&["refresh", "local/project"]);
        assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), commit);
    };

    show(&bad);

    assert_eq!(names_in(&mounted), [".git"]);
    assert!(!mounted.join("ok").exists() && !mounted.join("d/f").exists());
    let status = mount.cli(&["status"]);
    assert!(status.contains("There is no work tree"), "{status}");
    fs::remove_file(repo.work.join("ok")).unwrap();
    repo.write("new", b"new\n");
    let good = repo.commit("good again");

    let show = |commit: &str| {
        git(
            &repo.work,
            &["push", "-q", "--force", "origin", &format!("{commit}:main")],
        );
        mount.cli(&["refresh", "local/project"]);
    };
    show(&good);

    assert_eq!(names_in(&mounted), [".git", "d", "new"]);
    assert_eq!(fs::read(mounted.join("new")).unwrap(), b"new\n");
    assert!(!mounted.join("ok").exists());
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}

#[test]
fn a_work_tree_appears_after_a_first_commit_that_git_refuses() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    let bad = repo.commit_with_refused_tree();
    git(
        &repo.work,
        &["push", "-q", "origin", &format!("{bad}:refs/heads/main")],
    );
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    assert_eq!(names_in(&mounted), [".git"]);
    assert!(!mounted.join("ok").exists());

    repo.write("ok", b"ok\n");
    repo.commit("good");
    repo.push();
    mount.cli(&["refresh", "local/project"]);

    assert_eq!(names_in(&mounted), [".git", "ok"]);
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}
