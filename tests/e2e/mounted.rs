//! git, libgit2 and ordinary programs in a mounted repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use cachewfs_tests::{
    Site, assert_index_checksum, can_mount, git, git_with_input, try_git, write_file,
};

/// Commands that only read. Each must print in the mount what it prints in a clone.
const READ_ONLY_COMMANDS: [&[&str]; 14] = [
    &["log", "--format=%H %an %s"],
    &["log", "--oneline", "--all", "--graph"],
    &["log", "--stat", "-3"],
    &["log", "-p", "-2", "--", "README.md"],
    &["log", "--format=%h", "--", "src/dir3"],
    &["blame", "README.md"],
    &["grep", "-c", "11", "HEAD"],
    &["grep", "-l", "quoted"],
    &["diff", "HEAD~5"],
    &["diff", "--stat", "HEAD~20", "HEAD"],
    &["rev-list", "--all", "--objects"],
    &["ls-tree", "-r", "-z", "HEAD"],
    &[
        "cat-file",
        "--batch-check",
        "--batch-all-objects",
        "--unordered",
    ],
    &["ls-files", "--stage"],
];

#[test]
fn reads_without_passthrough_are_correct_and_catch_up() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off,no_passthrough");
    let mounted = mount.repo("local/project");

    for arguments in [
        &["log", "-p", "--format=%H"][..],
        &["grep", "-c", "11"],
        &["status", "--porcelain"],
    ] {
        assert_eq!(git(&mounted, arguments), git(&repo.work, arguments));
    }
    assert!(try_git(&mounted, &["fsck", "--full"]).status.success());
    let readme = mounted.join("README.md");
    let refused = fs::File::options().write(true).open(&readme);
    assert!(refused.and_then(|file| file.set_len(0)).is_err());
    repo.write("README.md", b"another\n");
    repo.commit("another");
    repo.push();
    mount.cli(&["refresh", "local/project"]);

    assert_eq!(fs::read(&readme).unwrap(), b"another\n");
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}

#[test]
fn thousands_of_refs_match_upstream_also_after_one_moves() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let head = git(&repo.work, &["rev-parse", "HEAD"]);
    let tags = (0..5000).map(|number| format!("create refs/tags/t{number:05} {}\n", head.trim()));
    let tags = tags.collect::<Vec<_>>().concat();
    git_with_input(&repo.upstream, &["update-ref", "--stdin"], tags.as_bytes());
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let refs = ["for-each-ref", "--format=%(objectname) %(refname)"];

    let before = git(&mounted, &refs);
    assert_eq!(before, git(&repo.upstream, &refs));
    repo.commit("moved");
    repo.push();
    mount.cli(&["refresh", "local/project"]);

    let after = git(&mounted, &refs);
    assert!(after != before);
    assert_eq!(after, git(&repo.upstream, &refs));
}

#[test]
fn git_prints_the_same_as_in_a_clone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let clone = site.path().join("clone");
    git(
        site.path(),
        &[
            "clone",
            "-q",
            "--no-local",
            &repo.upstream.display().to_string(),
            "clone",
        ],
    );
    // In a plain clone, branches of upstream are remote-tracking branches. Make its refs those of
    // the mount.
    git(&clone, &["branch", "-q", "topic", "origin/topic"]);
    git(&clone, &["update-ref", "-d", "refs/remotes/origin/HEAD"]);
    git(&clone, &["update-ref", "-d", "refs/remotes/origin/main"]);
    git(&clone, &["update-ref", "-d", "refs/remotes/origin/topic"]);

    for arguments in READ_ONLY_COMMANDS {
        let sorted = |text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let (in_mount, in_clone) = (git(&mounted, arguments), git(&clone, arguments));
        assert_eq!(sorted(in_mount), sorted(in_clone), "git {arguments:?}");
    }
    let refs = [
        "for-each-ref",
        "--format=%(refname) %(objectname)",
        "refs/heads",
        "refs/tags",
    ];
    assert_eq!(git(&mounted, &refs), git(&repo.upstream, &refs));
    assert_index_checksum(&mounted.join(".git"));
    let fsck = try_git(&mounted, &["fsck", "--full", "--strict"]);
    assert!(
        fsck.status.success(),
        "{}",
        String::from_utf8_lossy(&fsck.stderr)
    );
}

#[test]
fn status_is_clean_the_first_time_and_reads_no_file() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    // Many bytes: the counters of the mount would show that they were read.
    for number in 0_u8..=255 {
        let noise: Vec<u8> = (0..64_u32 << 10).map(|at| noise(at, number)).collect();
        repo.write(format!("large/{number}"), &noise);
    }
    repo.commit("16 MiB of noise");
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());

    let status = git(mount.repo("local/project"), &["status", "--porcelain"]);

    assert_eq!(status, "");
    let report = mount.status();
    let parts = report["repos"][0]["parts"].as_array().unwrap();
    let work_tree = parts
        .iter()
        .find(|part| part["part"] == "work tree")
        .unwrap();
    // The index counts as a part of the work tree. Only the index was fetched, and no file.
    let fetched = work_tree["cached_bytes"].as_u64().unwrap();
    assert!(
        fetched < 64 << 10,
        "{fetched} bytes of the work tree for a status"
    );
}

/// Returns byte `at` of content that doesn't compress.
fn noise(at: u32, seed: u8) -> u8 {
    let mixed = (at ^ u32::from(seed) << 20).wrapping_mul(0x9E37_79B1);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B);
    mixed.to_le_bytes()[2]
}

#[test]
fn the_work_tree_is_what_git_checks_out() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    git(
        site.path(),
        &[
            "clone",
            "-q",
            "--no-local",
            &repo.upstream.display().to_string(),
            "clone",
        ],
    );

    let differences = Command::new("diff")
        .args(["--recursive", "--no-dereference", "--exclude=.git"])
        .arg(site.path().join("clone"))
        .arg(mount.repo("local/project"))
        .output()
        .unwrap();

    let text = String::from_utf8_lossy(&differences.stdout);
    assert!(differences.status.success(), "{text}");
    let script = Command::new(mount.repo("local/project").join("run.sh"))
        .output()
        .unwrap();
    assert_eq!(script.stdout, b"ran\n");
}

#[test]
fn a_plain_git_clone_copies_no_pack() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    git(
        site.path(),
        &["clone", "-q", &mounted.display().to_string(), "plain"],
    );

    let plain = site.path().join("plain");
    let alternates = plain.join(".git/objects/info/alternates");
    let point = mount.point.display();
    let objects = format!("{point}/local/project/.git/cachewfs/objects\n");
    assert_eq!(fs::read_to_string(&alternates).unwrap(), objects);
    // Clones that were made with earlier versions have the other path.
    for objects in [objects, format!("{point}/.objects/local/project/objects\n")] {
        write_file(&alternates, objects);
        assert_eq!(packs(&plain.join(".git/objects/pack")), 0);
        assert_eq!(git(&plain, &["status", "--porcelain"]), "");
        assert!(try_git(&plain, &["fsck"]).status.success());
    }
}

/// Returns how many packs there are in `directory`, or 0 if it doesn't exist.
pub(crate) fn packs(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension() == Some("pack".as_ref()))
        .count()
}

#[test]
fn libgit2_reads_a_mounted_repository() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());

    let mounted = git2::Repository::open(mount.repo("local/project")).unwrap();

    let head = mounted.head().unwrap().peel_to_commit().unwrap();
    assert_eq!(
        head.id().to_string(),
        git(&repo.work, &["rev-parse", "HEAD"]).trim()
    );
    let mut walk = mounted.revwalk().unwrap();
    walk.push_head().unwrap();
    let count: usize = git(&repo.work, &["rev-list", "--count", "HEAD"])
        .trim()
        .parse()
        .unwrap();
    assert_eq!(walk.count(), count);
    let mut blobs = 0;
    let tree = head.tree().unwrap();
    tree.walk(git2::TreeWalkMode::PreOrder, |_, entry| {
        if entry.kind() == Some(git2::ObjectType::Blob) {
            entry.to_object(&mounted).unwrap();
            blobs += 1;
        }
        git2::TreeWalkResult::Ok
    })
    .unwrap();
    let files = git(&repo.work, &["ls-tree", "-r", "--name-only", "HEAD"])
        .lines()
        .count();
    assert_eq!(blobs, files);
}

#[test]
fn a_pinned_repository_is_readable_without_the_daemon() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let mut daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    mount.cli(&["pin", "local/project"]);

    daemon.kill();

    for arguments in READ_ONLY_COMMANDS {
        git(&mounted, arguments);
    }
    git(&mounted, &["fsck", "--full"]);
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}

#[test]
fn a_name_may_be_typed_in_any_case_where_upstream_ignores_case() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("org/project");
    // Names at `local` differ by case; names at `github.com` don't.
    let github = format!(
        "\"github.com\" = \"file://{}\"\n",
        site.upstreams().display()
    );
    let daemon = site.daemon_with_tables(&github);
    let mount = site.mount(&daemon.url());
    let head = git(&repo.upstream, &["rev-parse", "main"]);

    for name in ["github.com/Org/Project", "github.com/org/project"] {
        let directory = mount.point.join(name);
        assert_eq!(git(&directory, &["rev-parse", "HEAD"]), head, "{name}");
        assert_eq!(git(&directory, &["status", "--porcelain"]), "", "{name}");
    }
    assert!(!mount.point.join("local/Org/Project").exists());
    // Both spellings have one mirror.
    let mirrors = site.path().join("daemon/data/mirrors/github.com");
    assert_eq!(fs::read_dir(mirrors).unwrap().count(), 1);
}

#[test]
fn programs_that_only_read_cause_no_warning() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    git(&mounted, &["status", "--porcelain"]);
    let script = "import os,sys\n\
        f = open(sys.argv[1] + '/.git/HEAD', 'rb', buffering=0)\n\
        f.isatty(); f.seek(0, os.SEEK_END); os.fsync(f.fileno()); os.listxattr(f.fileno())";
    let programs: [&[&str]; 3] = [
        &["python3", "-c", script],
        &["tar", "--create", "--xattrs", "--acls", "--file=/dev/null"],
        &["stat", "--file-system"],
    ];

    for program in programs {
        let mut command = Command::new(program[0]);
        let output = command.args(&program[1..]).arg(&mounted).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?}: {complaint}");
    }

    assert!(!mount.log().contains("WARN"), "{}", mount.log());
}
