//! Trees with files that no filesystem can hold: the other files work, and messages name the
//! missing ones.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use cachewfs_tests::{GitRepo, Site, can_mount, git, run, try_git};

/// Adds a file to the index of the working copy, but not to its work tree, which may not be able to
/// hold it.
fn add_to_index(repo: &GitRepo, mode: &str, path: &str, content: &[u8]) {
    let entry = format!("{mode},{},{path}", repo.store_blob(content));
    git(
        &repo.work,
        &["update-index", "--add", "--cacheinfo", &entry],
    );
}

fn commit_and_push(repo: &GitRepo, message: &str) {
    git(&repo.work, &["commit", "-q", "-m", message]);
    git(&repo.work, &["push", "-q", "origin", "main"]);
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn files_that_no_filesystem_can_have_are_left_out_and_named() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    add_to_index(&repo, "100644", "ok", b"ok\n");
    add_to_index(&repo, "120000", "empty-link", b"");
    add_to_index(&repo, "120000", "sub/long-link", &[b'a'; 5000]);
    commit_and_push(&repo, "odd links");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    assert_eq!(fs::read(mounted.join("ok")).unwrap(), b"ok\n");
    assert!(fs::symlink_metadata(mounted.join("empty-link")).is_err());
    let head = git(&repo.work, &["rev-parse", "HEAD"]);
    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]), head);
    git(&mounted, &["fsck"]);
    // The index lists the files that are there. So `git status` reports the missing ones as
    // deleted.
    let status = git(&mounted, &["status", "--porcelain"]);
    assert_eq!(status, "D  empty-link\nD  sub/long-link\n");
    let status = mount.cli(&["status"]);
    assert!(
        status.contains("'empty-link' (it is a symbolic link to an empty path)"),
        "{status}"
    );

    let clone = site.path().join("clone");
    let point = mount.point.display().to_string();
    let target = clone.display().to_string();
    let cloned = run(&["clone", "local/project", &target, "--mount", &point]);

    // As after a failed checkout of `git clone`, the clone stays, with the files that could be
    // written.
    assert_eq!(cloned.status.code(), Some(1));
    let said = said(&cloned);
    assert!(
        said.contains("has the whole history") && said.contains("empty-link"),
        "{said}"
    );
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), head);
    assert_eq!(fs::read(clone.join("ok")).unwrap(), b"ok\n");
}

#[test]
fn a_restore_writes_the_files_that_a_filesystem_can_have() {
    let site = Site::default();
    let repo = site.repo("project");
    add_to_index(&repo, "100644", "ok", b"ok\n");
    add_to_index(&repo, "120000", "empty-link", b"");
    add_to_index(&repo, "100644", "z", b"z\n");
    commit_and_push(&repo, "an odd link");
    let daemon = site.daemon();
    let restored = site.path().join("restored");
    let (target, url) = (restored.display().to_string(), daemon.url());

    for _ in ["new", "again"] {
        let output = run(&["restore", "local/project", &target, "--daemon", &url]);

        let said = said(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("'empty-link' (it is a symbolic link to an empty path)"),
            "{said}"
        );
        let status = git(&restored, &["status", "--porcelain"]);
        assert_eq!(status, " D empty-link\n");
        assert_eq!(fs::read(restored.join("z")).unwrap(), b"z\n");
        git(&restored, &["fsck"]);
    }
}

/// Linux takes paths of at most 4,095 bytes. A path of this length must be shown: the directory in
/// which the daemon checks it out must not count.
#[test]
fn the_longest_path_is_shown() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    let mut path = vec!["e".repeat(250); 16].join("/");
    path.push('/');
    path.push_str(&"f".repeat(4095 - path.len()));
    add_to_index(&repo, "100644", &path, b"deep\n");
    add_to_index(&repo, "100644", &format!("{path}x"), b"too deep\n");
    commit_and_push(&repo, "a long path");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    let status = git(&mounted, &["status", "--porcelain"]);
    let listed = git(&mounted, &["ls-files"]);

    assert_eq!(listed.trim(), path);
    assert_eq!(status, format!("D  {path}x\n"));
    let content = git(
        &mounted,
        &["--no-pager", "grep", "--no-index", "-h", "dee", "--", "."],
    );
    assert_eq!(content, "deep\n");
}

/// `git pack-objects` reads each line of its input into a buffer of about 4,160 bytes. Longer paths
/// must not break a publish.
#[test]
fn paths_of_any_length_in_the_history_are_published() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    let long = format!("{}f", format!("{}/", "e".repeat(250)).repeat(17));
    add_to_index(&repo, "100644", &long, b"hi\n");
    add_to_index(&repo, "100644", "ok", b"ok\n");
    git(&repo.work, &["commit", "-q", "-m", "long"]);
    git(&repo.work, &["update-index", "--force-remove", &long]);
    commit_and_push(&repo, "gone");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    git(&mounted, &["fsck"]);
    let listed = git(&mounted, &["ls-tree", "-r", "HEAD~1"]);
    let line = listed.lines().find(|line| line.ends_with(&long)).unwrap();
    let blob = line.split_ascii_whitespace().nth(2).unwrap();
    assert_eq!(git(&mounted, &["cat-file", "blob", blob]), "hi\n");
    assert!(!daemon.log().contains("damaged"), "{}", daemon.log());
}

#[test]
fn a_clone_that_git_refuses_to_check_out_stays() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    let refspec = format!("{}:refs/heads/main", repo.commit_with_refused_tree());
    git(&repo.work, &["push", "-q", "origin", &refspec]);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();
    let clone: PathBuf = site.path().join("clone");
    let target = clone.display().to_string();

    let cloned = run(&["clone", "local/project", &target, "--mount", &point]);

    let said = said(&cloned);
    assert_eq!(cloned.status.code(), Some(1), "{said}");
    // The message names the subcommand of git, not an option's value.
    assert!(
        said.contains("git checkout failed") && said.contains("git~1"),
        "{said}"
    );
    assert_eq!(git(&clone, &["log", "--format=%s"]), "bad\n");
}

/// Otherwise the first push to an empty repository would show late.
#[test]
fn refresh_asks_upstream_also_for_an_empty_repository() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();
    let refresh = || run(&["refresh", "local/project", "--mount", &point]);
    let empty = refresh();
    assert!(!empty.status.success());
    // The CLI prints the daemon's message, which has the next step.
    assert!(
        said(&empty).contains("Push a commit first"),
        "{}",
        said(&empty)
    );

    repo.write("file", b"1\n");
    let head = repo.commit("first");
    repo.push();
    let refreshed = refresh();

    assert!(refreshed.status.success(), "{}", said(&refreshed));
    let mounted = mount.repo("local/project");
    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), head);
    // Upstream disappears. The CLI prints the reason.
    fs::rename(&repo.upstream, site.path().join("elsewhere")).unwrap();
    let failed = refresh();
    assert!(said(&failed).contains("upstream"), "{}", said(&failed));
    assert!(try_git(&mounted, &["status"]).status.success());

    // A name that nobody had is a directory. The kernel believes so for a while.
    let later = mount.repo("local/later");
    assert_eq!(fs::read_dir(&later).unwrap().count(), 0);
    let mut repo = site.repo("later");
    repo.write("file", b"1\n");
    let head = repo.commit("first");
    repo.push();
    let listed = fs::read_dir(&later).unwrap().count();
    mount.cli(&["refresh", "local/later"]);
    assert_eq!((listed, later.join("file").exists()), (0, true));
    assert_eq!(git(&later, &["rev-parse", "HEAD"]).trim(), head);
}
