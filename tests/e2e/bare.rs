//! The bare repository beside each repository, and a repository's directory that works alone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use cachewfs_tests::{Site, can_mount, git, git_command, try_git};

use crate::mounted::packs;

/// Commands that read every ref and every object.
const EVERYTHING: [&[&str]; 3] = [
    &["for-each-ref", "--format=%(objectname) %(refname)"],
    &["log", "--all", "--format=%H %an %s", "-p"],
    &["rev-parse", "HEAD"],
];

#[test]
fn the_bare_repository_needs_no_other_directory_and_follows_upstream() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    // Looked up before the repository itself.
    let bare = mount.repo("local/project.git");
    let mounted = mount.repo("local/project");
    let expect_everything = |upstream: &Path| {
        for arguments in EVERYTHING {
            let in_bare = git(&bare, arguments);
            assert_eq!(in_bare, git(upstream, arguments), "git {arguments:?}");
            assert_eq!(in_bare, git(&mounted, arguments), "git {arguments:?}");
        }
        assert!(try_git(&bare, &["fsck", "--full"]).status.success());
    };

    expect_everything(&repo.upstream);

    assert!(packs(&bare.join("objects/pack")) > 0);
    assert!(!bare.join("objects/info/alternates").exists());
    let libgit2 = git2::Repository::open(&bare).unwrap();
    assert!(libgit2.is_bare() && libgit2.head().unwrap().peel_to_tree().is_ok());
    repo.write("new", b"new\n");
    let commit = repo.commit("new");
    repo.push();
    mount.cli(&["refresh", "local/project"]);
    assert_eq!(git(&bare, &["rev-parse", "main"]).trim(), commit);
    expect_everything(&repo.upstream);
    // The kernel has the pages of a pack once, but would move a directory with two paths.
    let inode = |path: &str| fs::metadata(mount.point.join(path)).unwrap().ino();
    let places = [
        "local/project.git",
        "local/project/.git/cachewfs",
        ".objects/local/project",
    ];
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let of = |place: usize, path: &str| inode(&format!("{}/{path}", places[place]));
        assert_eq!(of(one, "packed-refs"), of(other, "packed-refs"));
        assert_ne!(of(one, "objects"), of(other, "objects"));
    }
}

#[test]
fn clones_of_the_bare_repository_are_complete() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let bare = mount.repo("local/project.git").display().to_string();
    let mounted = mount.repo("local/project").display().to_string();
    let upstream = format!("file://{}", repo.upstream.display());
    let url = format!("file://{bare}");

    for (number, (arguments, borrows)) in [
        (&["--shared", &*bare][..], true),
        (&["--shared", &mounted], true),
        (&["--reference", &bare, &upstream], true),
        (&["--reference", &mounted, &upstream], true),
        (&[&*bare], false),
        (&[&*url], false),
    ]
    .into_iter()
    .enumerate()
    {
        let clone = site.path().join(number.to_string());
        let target = clone.display().to_string();
        let arguments = [&["clone", "-q"][..], arguments, &[&target]].concat();
        git(site.path(), &arguments);

        let head = git(&clone, &["log", "-p", "--format=%H"]);
        assert_eq!(head, git(&repo.work, &["log", "-p", "--format=%H"]));
        let has_packs = packs(&clone.join(".git/objects/pack")) > 0;
        assert_eq!(has_packs, !borrows, "git {arguments:?}");
    }
}

#[test]
fn a_repository_works_alone_in_a_bind_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let alone = site.path().join("alone");
    fs::create_dir(&alone).unwrap();
    // In a mount namespace of its own, as in a container.
    let script = "mount --bind \"$1\" \"$2\" && umount --lazy \"$3\" && cd \"$2\" && shift 3 && \
                  exec git \"$@\"";
    let git_alone = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command
            .args([&mounted, &alone, &mount.point])
            .args(arguments);
        for (name, value) in git_command(&alone).get_envs() {
            command.env(name, value.unwrap());
        }
        let output = command.output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        (String::from_utf8(output.stdout).unwrap(), complaint)
    };

    let expected = git(&mounted, &["rev-parse", "HEAD:README.md"]);
    for arguments in [
        &["status", "--porcelain", "--branch"][..],
        &["log", "--all", "-p"],
        &["cat-file", "-p", expected.trim()],
        &["blame", "README.md"],
        &["fsck", "--full", "--no-progress"],
    ] {
        let here = git(&mounted, arguments);
        assert_eq!(
            git_alone(arguments),
            (here, String::new()),
            "git {arguments:?}"
        );
    }
}
