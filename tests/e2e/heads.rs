//! A mount and a `cachewfs clone` show what `git clone` shows, whatever HEAD of upstream names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cachewfs_tests::{
    GitRepo, MountProcess, Site, can_mount, git, git_at_time, git_command, run, try_git,
};

/// Returns the output of `git <arguments>` as bytes: names of refs need not be UTF-8.
fn bytes(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    git_command(directory)
        .args(arguments)
        .output()
        .unwrap()
        .stdout
}

fn branches(directory: &Path) -> Vec<u8> {
    bytes(
        directory,
        &[
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/heads/",
        ],
    )
}

/// Creates a repository with the branches `main` and `dev`. Then calls `set_head`, which changes
/// its HEAD.
fn odd_head(site: &Site, name: &str, set_head: impl FnOnce(&GitRepo)) -> GitRepo {
    let mut repo = site.repo(name);
    repo.write("f", b"v1\n");
    repo.commit("one");
    repo.push();
    git(&repo.work, &["push", "-q", "origin", "main:dev"]);
    set_head(&repo);
    repo
}

/// Compares a repository in the mount, and a `cachewfs clone` of it, with a plain `git clone`.
fn compare_with_plain_clone(site: &Site, mount: &MountProcess, (repo, name): (&GitRepo, &str)) {
    let plain = site.plain_clone(repo, name);
    let mounted = mount.repo(&format!("local/{name}"));
    let clone = site.path().join("clone").join(name);
    let target = clone.display().to_string();
    mount.cli(&["clone", &format!("local/{name}"), &target]);

    assert_eq!(
        String::from_utf8_lossy(&branches(&mounted)),
        String::from_utf8_lossy(&branches(&repo.upstream)),
        "{name}"
    );
    let symref = |directory: &Path| bytes(directory, &["symbolic-ref", "-q", "HEAD"]);
    let head =
        |directory: &Path| bytes(directory, &["rev-parse", "-q", "--verify", "HEAD^{commit}"]);
    let files = |directory: &Path| bytes(directory, &["ls-files", "-s"]);
    for ours in [&mounted, &clone] {
        assert_eq!(symref(ours), symref(&plain), "{name} {}", ours.display());
        assert_eq!(head(ours), head(&plain), "{name} {}", ours.display());
        assert_eq!(files(ours), files(&plain), "{name} {}", ours.display());
        assert_eq!(ours.join("f").exists(), plain.join("f").exists(), "{name}");
    }
    // Without a work tree, `git status` fails.
    if plain.join("f").exists() {
        assert_eq!(git(&mounted, &["status", "--porcelain"]), "", "{name}");
        assert_eq!(git(&clone, &["status", "--porcelain"]), "", "{name}");
    }
    // origin/HEAD is left out: if upstream's HEAD is not on a branch, `git clone` guesses one.
    let remotes = |directory: &Path| {
        let listed = bytes(
            directory,
            &[
                "for-each-ref",
                "--format=%(objectname) %(refname)",
                "refs/remotes/",
            ],
        );
        let lines = listed.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.ends_with(b" refs/remotes/origin/HEAD"));
        lines.collect::<Vec<_>>().concat()
    };
    assert_eq!(
        String::from_utf8_lossy(&remotes(&clone)),
        String::from_utf8_lossy(&remotes(&plain)),
        "{name}"
    );
}

#[test]
fn an_odd_head_is_shown_as_in_a_clone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let set_head = |repo: &GitRepo, target: &str| {
        git(&repo.upstream, &["symbolic-ref", "HEAD", target]);
    };
    let latin = OsStr::from_bytes(b"refs/heads/gr\xfcn");
    let add_latin = |repo: &GitRepo| {
        let mut command = git_command(&repo.upstream);
        command.args([OsStr::new("update-ref"), latin, OsStr::new("main")]);
        assert!(command.status().unwrap().success());
    };
    let repos = [
        odd_head(&site, "meta", |repo| {
            git(
                &repo.work,
                &["push", "-q", "origin", "main:refs/meta/config"],
            );
            set_head(repo, "refs/meta/config");
        }),
        odd_head(&site, "tag", |repo| {
            git(&repo.work, &["push", "-q", "origin", "main:refs/tags/v1"]);
            set_head(repo, "refs/tags/v1");
        }),
        odd_head(&site, "annotated", |repo| {
            git_at_time(&repo.work, 2, &["tag", "-a", "-m", "tag", "v1"]);
            repo.push();
            set_head(repo, "refs/tags/v1");
        }),
        odd_head(&site, "branch-head", |repo| {
            git(&repo.upstream, &["update-ref", "refs/heads/HEAD", "main"]);
        }),
        odd_head(&site, "at-branch-head", |repo| {
            git(&repo.upstream, &["update-ref", "refs/heads/HEAD", "main"]);
            set_head(repo, "refs/heads/HEAD");
        }),
        odd_head(&site, "latin", |repo| {
            add_latin(repo);
            let mut command = git_command(&repo.upstream);
            command.args([OsStr::new("symbolic-ref"), OsStr::new("HEAD"), latin]);
            assert!(command.status().unwrap().success());
        }),
        odd_head(&site, "latin-beside", add_latin),
    ];
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());

    for repo in &repos {
        let name = repo.upstream.file_name().unwrap().to_str().unwrap();
        compare_with_plain_clone(&site, &mount, (repo, name));
    }
}

#[test]
fn an_unborn_head_shows_all_branches_and_no_work_tree() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = odd_head(&site, "project", |repo| {
        git(&repo.upstream, &["symbolic-ref", "HEAD", "refs/heads/gone"]);
    });
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let point = mount.point.display().to_string();

    assert!(mounted.join(".git").exists() && !mounted.join("f").exists());
    assert_eq!(branches(&mounted), branches(&repo.upstream));
    assert!(
        !try_git(&mounted, &["rev-parse", "-q", "--verify", "HEAD"])
            .status
            .success()
    );
    git(&mounted, &["fsck"]);
    let clone = site.path().join("clone");
    let cloned = run(&[
        "clone",
        "local/project",
        &clone.display().to_string(),
        "--mount",
        &point,
    ]);
    let said = String::from_utf8_lossy(&cloned.stderr).into_owned();
    assert!(
        cloned.status.success() && said.contains("does not exist"),
        "{said}"
    );
    assert_eq!(git(&clone, &["log", "--format=%s", "origin/dev"]), "one\n");
    git(&clone, &["checkout", "-q", "dev"]);

    // HEAD gets a commit, moves on, and names a missing branch again.
    git(&repo.upstream, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    repo.write("f", b"v2\n");
    let second = repo.commit("two");
    repo.push();
    mount.cli(&["refresh", "local/project"]);
    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), second);
    assert_eq!(fs::read(mounted.join("f")).unwrap(), b"v2\n");
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");

    git(&repo.upstream, &["symbolic-ref", "HEAD", "refs/heads/gone"]);
    repo.write("f", b"v3\n");
    repo.commit("three");
    repo.push();
    mount.cli(&["refresh", "local/project"]);
    assert!(!mounted.join("f").exists());
    assert_eq!(branches(&mounted), branches(&repo.upstream));
}

/// HEAD moves to a branch whose name is not UTF-8, and on from there.
#[test]
fn branches_move_when_head_names_a_branch_that_is_not_utf8() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = odd_head(&site, "project", |_| {});
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    assert_eq!(fs::read(mounted.join("f")).unwrap(), b"v1\n");

    let latin = OsStr::from_bytes(b"refs/heads/gr\xfcn");
    for arguments in [
        [OsStr::new("update-ref"), latin, OsStr::new("main")],
        [OsStr::new("symbolic-ref"), OsStr::new("HEAD"), latin],
    ] {
        let mut command = git_command(&repo.upstream);
        assert!(command.args(arguments).status().unwrap().success());
    }
    repo.write("f", b"v2\n");
    repo.commit("two");
    let mut push = git_command(&repo.work);
    push.args(["push", "-q", "origin", "main:dev"]);
    push.arg(OsStr::from_bytes(b"main:refs/heads/gr\xfcn"));
    assert!(push.status().unwrap().success());
    mount.cli(&["refresh", "local/project"]);

    assert_eq!(fs::read(mounted.join("f")).unwrap(), b"v2\n");
    assert_eq!(branches(&mounted), branches(&repo.upstream));
}

/// git writes wrong generation numbers into its commit-graph for dates after 2106.
#[test]
fn commits_dated_after_2106_are_reachable() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    for (date, tag) in [
        (4_761_302_400_u64, "T"),
        (1_700_000_000, "two"),
        (1_700_000_001, "three"),
    ] {
        let date = format!("@{date} +0000");
        let mut command = git_command(&repo.work);
        command
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .args(["commit", "-q", "--allow-empty", "-m", tag]);
        assert!(command.status().unwrap().success());
        git(&repo.work, &["tag", tag]);
    }
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    git(&mounted, &["merge-base", "--is-ancestor", "T", "main"]);
    assert_eq!(git(&mounted, &["branch", "--contains", "T"]), "* main\n");
    assert_eq!(
        git(&mounted, &["tag", "--merged", "main"]),
        "T\nthree\ntwo\n"
    );
    git(&mounted, &["fsck"]);
}
