//! Archives are ordinary files: curl fetches them, tar extracts them, and git works in the result.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use cachewfs_tests::{
    DaemonProcess, Site, add_loose_objects, can_mount, extract_archive, git, try_git, wait_until,
};

/// Waits until an archive is published, fetches it with curl and extracts it with tar.
fn fetch_and_extract(daemon: &DaemonProcess, archive: &str, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let file = directory.with_extension("tar.zst");
    let url = format!("{}/git/local/project/{archive}.tar.zst", daemon.url());
    wait_until("the archive is published", || {
        let curl = Command::new("curl")
            .args(["--silent", "--fail", "--output"])
            .arg(&file)
            .arg(&url)
            .status()
            .unwrap();
        curl.success()
    });
    let tested = Command::new("zstd")
        .args(["--test", "--quiet"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(tested.success());
    extract_archive(&file, directory);
}

#[test]
fn a_checkout_archive_extracts_to_a_clean_clone() {
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let clone = site.path().join("extracted");

    fetch_and_extract(&daemon, "snapshot", &clone);

    // A clean status means that git believed the sizes and times in the index of the archive.
    assert_eq!(
        git(&clone, &["status", "--porcelain", "--branch"]),
        "## main...origin/main\n"
    );
    assert!(
        try_git(&clone, &["fsck", "--full", "--strict"])
            .status
            .success()
    );
    assert_eq!(
        git(&clone, &["rev-parse", "HEAD", "origin/topic"]),
        git(&repo.upstream, &["rev-parse", "main", "topic"])
    );
    let url = git(&clone, &["remote", "get-url", "origin"]);
    assert!(
        url.starts_with("file://") && url.trim().ends_with("/upstreams/project"),
        "{url}"
    );
    git(&clone, &["pull", "-q"]);
    let index = std::fs::metadata(clone.join(".git/index"))
        .unwrap()
        .modified()
        .unwrap();
    let file = std::fs::metadata(clone.join("README.md"))
        .unwrap()
        .modified()
        .unwrap();
    assert!(index > file);
}

#[test]
fn maintenance_leaves_the_packs_of_an_extracted_archive_alone() {
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    for (archive, git_directory) in [("snapshot", ".git"), ("mirror", ".")] {
        let extracted = site.path().join(archive);
        fetch_and_extract(&daemon, archive, &extracted);
        let packs = || {
            let files = std::fs::read_dir(extracted.join(git_directory).join("objects/pack"));
            let names = files.unwrap().map(|file| file.unwrap().file_name());
            let is_pack = |name: &OsString| name.as_encoded_bytes().ends_with(b".pack");
            names.filter(is_pack).collect::<BTreeSet<_>>()
        };
        let published = packs();
        // Enough loose objects for `git maintenance run --auto` to find work.
        add_loose_objects(&extracted, archive, 300);

        git(
            &extracted,
            &[
                "-c",
                "maintenance.autoDetach=false",
                "maintenance",
                "run",
                "--auto",
            ],
        );
        git(&extracted, &["gc", "-q"]);

        assert!(packs().is_superset(&published), "{archive}");
        assert!(try_git(&extracted, &["fsck", "--full"]).status.success());
        let url = repo.upstream.display().to_string();
        git(&extracted, &["fetch", "-q", &url, "main"]);
    }
}

#[test]
fn a_mirror_archive_extracts_to_a_whole_mirror() {
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mirror = site.path().join("mirror");

    fetch_and_extract(&daemon, "mirror", &mirror);

    assert!(
        try_git(&mirror, &["fsck", "--full", "--strict"])
            .status
            .success()
    );
    let refs = ["for-each-ref", "--format=%(refname) %(objectname)"];
    assert_eq!(git(&mirror, &refs), git(&repo.upstream, &refs));
    let objects = ["cat-file", "--batch-check", "--batch-all-objects"];
    assert_eq!(git(&mirror, &objects), git(&repo.upstream, &objects));
}

#[test]
fn the_mount_and_the_archive_agree() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let clone = site.path().join("extracted");
    fetch_and_extract(&daemon, "snapshot", &clone);
    let mount = site.mount(&daemon.url());

    let differences = Command::new("diff")
        .args(["--recursive", "--no-dereference", "--exclude=.git"])
        .arg(&clone)
        .arg(mount.repo("local/project"))
        .output()
        .unwrap();

    assert!(
        differences.status.success(),
        "{}",
        String::from_utf8_lossy(&differences.stdout)
    );
}
