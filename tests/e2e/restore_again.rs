//! `cachewfs restore` into a directory that has an older restore.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use cachewfs_tests::{DaemonProcess, GitRepo, RecordingProxy, Site, git, run, said, try_git};

use crate::restore::{archive_len, assert_success, relative, restore};

/// An upstream, its daemon, and a clone that `cachewfs restore` made.
struct Restored {
    site: Site,
    repo: GitRepo,
    daemon: DaemonProcess,
    clone: PathBuf,
}

impl Restored {
    /// Restores a repository of `count` files of 60 KiB.
    fn new(count: usize) -> Self {
        let site = Site::default();
        let repo = site.repo_of_files("project", (count, 60 << 10));
        let daemon = site.daemon();
        archive_len(&daemon);
        let clone = site.path().join("restored");
        let restored = Self {
            site,
            repo,
            daemon,
            clone,
        };
        assert_success(&restored.again(&[]));
        restored
    }

    /// Restores the newest state of upstream.
    fn again(&self, options: &[&str]) -> Output {
        self.from(&self.daemon.url(), options)
    }

    fn from(&self, daemon: &str, options: &[&str]) -> Output {
        let newest = git(&self.repo.upstream, &["rev-parse", "main"]);
        let wanted = format!("main={}", newest.trim());
        let options = [&["--ref", &wanted], options].concat();
        restore(daemon, &self.clone, &options)
    }

    /// Asserts that the clone has the files and the refs of a clone by git.
    fn assert_like_a_clone(&self, name: &str) {
        let plain = self.site.plain_clone(&self.repo, name);
        for looking in [
            &["status", "--porcelain", "--branch"][..],
            &["for-each-ref"],
            &["log", "--oneline", "--all"],
            &["ls-files", "--stage"],
        ] {
            assert_eq!(
                git(&self.clone, looking),
                git(&plain, looking),
                "{looking:?}"
            );
        }
        assert_eq!(relative(&self.clone), relative(&plain));
        let fsck = try_git(&self.clone, &["fsck", "--full", "--strict"]);
        assert!(fsck.status.success(), "{}", said(&fsck));
    }

    fn write(&self, name: &str, content: &[u8]) {
        write(&self.clone.join(name), content);
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.clone.join(name)).unwrap()
    }
}

fn write(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

#[test]
fn an_update_costs_the_change() {
    let mut restored = Restored::new(150);
    let total = archive_len(&restored.daemon);
    let repo = &mut restored.repo;
    repo.write("0", b"changed");
    repo.write("directory/new", b"new");
    git(&repo.work, &["rm", "-q", "1"]);
    repo.commit("Change, add and remove a file");
    repo.push();
    git(&repo.work, &["tag", "-a", "v1", "-m", "A tag"]);
    git(&repo.work, &["push", "-q", "origin", "v1", "main:topic/a"]);
    let proxy = RecordingProxy::start(restored.daemon.address());

    let output = restored.from(&proxy.url(), &["--json"]);

    assert_success(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["is_update"], true);
    let fetched = proxy.answer_bytes();
    // The archive has the files twice, and a restore fetches only those in packs.
    assert!(fetched <= total / 200, "{fetched} of {total} were fetched");
    restored.assert_like_a_clone("one");

    // Upstream rewrites its history, and a branch makes room for another.
    let repo = &mut restored.repo;
    git(&repo.work, &["reset", "-q", "--hard", "HEAD^"]);
    git(&repo.work, &["rm", "-q", "0"]);
    repo.write("0/now/a/directory", b"1");
    repo.commit("Make a directory of a file");
    let pushed = [
        "push",
        "-q",
        "-f",
        "origin",
        "main",
        ":topic/a",
        "main:topic",
    ];
    git(&repo.work, &pushed);
    assert_success(&restored.again(&[]));
    restored.assert_like_a_clone("two");

    // Nothing is new. The output of a build stays.
    restored.write("output", b"built");
    let proxy = RecordingProxy::start(restored.daemon.address());
    assert_success(&restored.from(&proxy.url(), &[]));
    // The end of the archive, with the TOC.
    let fetched = proxy.answer_bytes();
    assert!(fetched < 72 << 10, "{fetched} bytes were fetched");
    assert_eq!(restored.read("output"), b"built");
    let leftovers = restored.clone.join(".git/cachewfs-restore");
    assert_eq!(std::fs::read_dir(leftovers).unwrap().count(), 1);
}

#[test]
fn an_update_overwrites_nothing_of_a_person() {
    let mut restored = Restored::new(8);
    let clone = restored.clone.clone();
    restored.repo.write("0", b"of upstream");
    restored.repo.write("new", b"of upstream");
    let newest = restored.repo.commit("Change a file, and add one");
    restored.repo.push();
    let refused = |options: &[&str], expected: &str| {
        let output = restored.again(options);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(expected), "{}", said(&output));
        assert!(said(&output).contains("--force"), "{}", said(&output));
    };
    let published = git(&clone, &["rev-parse", "HEAD"]);

    restored.write("0", b"mine");
    restored.write("new", b"mine");
    refused(&[], "overwrite: 0, new");
    git(&clone, &["add", "0"]);
    refused(&[], "overwrite: 0, new");
    assert_eq!(restored.read("0"), b"mine");
    assert_eq!(restored.read("new"), b"mine");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), published);

    git(&clone, &["commit", "-q", "-m", "Mine"]);
    refused(&[], "commits on main");
    git(&clone, &["switch", "-q", "-c", "mine"]);
    git(&clone, &["branch", "-q", "-f", "main", published.trim()]);
    refused(&[], "is on mine");
    assert_eq!(restored.read("0"), b"mine");

    assert_success(&restored.again(&["--force"]));
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).trim(), newest.trim());
    assert_eq!(restored.read("new"), b"of upstream");
    assert_eq!(git(&clone, &["log", "--format=%s", "-1", "mine"]), "Mine\n");
    git(&clone, &["branch", "-q", "-D", "mine"]);
    restored.assert_like_a_clone("plain");

    // Changes that are not in the way stay.
    restored.repo.write("1", b"of upstream");
    restored.repo.commit("Change another file");
    restored.repo.push();
    restored.write("0", b"mine");
    assert_success(&restored.again(&[]));
    assert_eq!(git(&clone, &["status", "--porcelain"]), " M 0\n");
    assert_eq!(restored.read("1"), b"of upstream");

    let bare = clone.display().to_string();
    let url = format!("{}/git/local/project", restored.daemon.url());
    let other = run(&["restore", "--bare", &url, &bare]);
    assert!(said(&other).contains("not a mirror"), "{}", said(&other));
}

#[test]
fn an_update_goes_on_after_a_kill() {
    let mut restored = Restored::new(6);
    let clone = restored.clone.clone();
    for name in ["0", "1", "2", "new"] {
        restored
            .repo
            .write(name, format!("{name} of upstream").as_bytes());
    }
    restored.repo.commit("Change files, and add one");
    restored.repo.push();
    // The restore and its git are killed when git writes the third file.
    let smudge = "cat; test %f != 2 || test -e .git/go || kill -9 $PPID $(ps -o ppid= $PPID)";
    git(&clone, &["config", "filter.killer.smudge", smudge]);
    let attributes = clone.join(".git/info/attributes");
    std::fs::create_dir_all(attributes.parent().unwrap()).unwrap();
    write(&attributes, b"2 filter=killer\n");
    let head = git(&clone, &["rev-parse", "HEAD"]);

    let killed = restored.again(&[]);

    assert_eq!(killed.status.code(), None, "{}", said(&killed));
    // The repository works, in its old state, with some files of the new one.
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), head);
    assert_eq!(restored.read("0"), b"0 of upstream");
    assert_ne!(restored.read("3"), b"3 of upstream");
    git(&clone, &["add", "3"]);
    assert!(try_git(&clone, &["fsck", "--full"]).status.success());
    // git was writing this one.
    restored.write("1", b"1 of up");
    write(&clone.join(".git/go"), b"");

    assert_success(&restored.again(&[]));

    std::fs::remove_file(&attributes).unwrap();
    restored.assert_like_a_clone("plain");
}
