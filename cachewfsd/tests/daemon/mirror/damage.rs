//! Mirrors that are damaged on disk: the daemon rebuilds them without an operator, but not again
//! and again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::support::captured_log::CapturedLog;
use crate::support::test_daemon::*;

fn mirror(daemon: &TestDaemon) -> PathBuf {
    let mirrors = daemon.root.path().join("data/mirrors");
    mirrors.join(format!("{REPO}.git"))
}

fn packs(mirror: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).unwrap();
    let mut packs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    packs.retain(|path| path.extension().is_some_and(|found| found == extension));
    assert!(!packs.is_empty());
    packs
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    write_file(path, content);
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(path, &bytes);
}

/// A description, and a function that damages a mirror in this way.
type Damage = (&'static str, fn(&Path));

/// Damage by disks and people that makes a mirror unusable.
const DAMAGES: &[Damage] = &[
    ("packs that are cut short", |mirror| {
        for pack in packs(mirror, "pack") {
            let bytes = fs::read(&pack).unwrap();
            overwrite(&pack, &bytes[..bytes.len() / 2]);
        }
    }),
    ("packs that are gone", |mirror| {
        for extension in ["pack", "idx"] {
            for path in packs(mirror, extension) {
                fs::remove_file(path).unwrap();
            }
        }
    }),
    ("indexes of zeros", |mirror| {
        for index in packs(mirror, "idx") {
            let len = usize::try_from(fs::metadata(&index).unwrap().len()).unwrap();
            overwrite(&index, &vec![0; len]);
        }
    }),
    ("no HEAD", |mirror| {
        fs::remove_file(mirror.join("HEAD")).unwrap();
    }),
    ("refs that can't be read", |mirror| {
        let refs = mirror.join("packed-refs");
        fs::remove_file(&refs).ok();
        write_file(&refs, b"\0\0\0\0\n");
    }),
    ("a ref to a missing object", |mirror| {
        let ghost = format!("{}\n", "12".repeat(20));
        write_file(&mirror.join("refs/heads/main"), ghost);
    }),
    ("a flipped bit in the middle of a pack", |mirror| {
        for pack in packs(mirror, "pack") {
            flip_a_bit(&pack);
        }
    }),
    ("refs in a reftable, the default of git 3.0", |mirror| {
        fs::create_dir(mirror.join("reftable")).unwrap();
    }),
    ("no objects", |mirror| {
        fs::remove_dir_all(mirror.join("objects")).unwrap();
    }),
];

/// Checks that a refresh publishes `head`. `what` describes the damage in the message of a failure.
async fn assert_refresh_gives(daemon: &TestDaemon, head: &str, what: &str) {
    let refresh = daemon.post(&format!("/git/{REPO}/refresh"), "").await;
    let (status, answer) = (refresh.status(), refresh.text().await.unwrap());
    assert_eq!(status, 200, "{what}: {answer}");
    assert!(answer.contains(head), "{what}: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_rebuilt_and_loses_nothing() {
    let mut daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let first = commit_and_push(&work, "one");
    write_file(&work.join("dropped"), noise(1, 1000));
    let dropped = commit_and_push(&work, "dropped");
    daemon.refresh().await;
    git(&work, ["reset", "-q", "--hard", &first]);
    for (what, damage) in DAMAGES {
        write_file(&work.join("file"), what);
        commit_and_push(&work, what);
        daemon.refresh().await;
        // A running daemon rebuilds a mirror at most once an hour, but a new one does so at once.
        daemon = TestDaemon::start_in(daemon.stop().await, |_| {}).await;

        damage(&mirror(&daemon));
        let head = commit_and_push(&work, "more");

        assert_refresh_gives(&daemon, &head, what).await;
        git(&mirror(&daemon), ["fsck", "--no-dangling"]);
        git(
            &mirror(&daemon),
            ["rev-list", "--objects", "--quiet", &dropped],
        );
        assert!(daemon.status().await["failure"].is_null(), "{what}");
    }
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

/// Damage that an update repairs, or in files that git does not need.
const REPAIRABLE: &[Damage] = &[
    ("a ref that a crash left empty", |mirror| {
        write_file(&mirror.join("refs/heads/main"), "");
    }),
    ("a commit-graph of zeros", |mirror| {
        let graphs = mirror.join("objects/info/commit-graphs");
        for entry in fs::read_dir(graphs).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "graph")
            {
                let len = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
                overwrite(&path, &vec![0; len]);
            }
        }
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_git_can_work_around_is_repaired_in_place() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let first: Vec<_> = packs(&mirror(&daemon), "pack");
    for (what, damage) in REPAIRABLE {
        damage(&mirror(&daemon));

        let head = commit_and_push(&work, what);

        assert_refresh_gives(&daemon, &head, what).await;
        assert!(first.iter().all(|pack| pack.exists()), "{what}");
        git(&mirror(&daemon), ["fsck", "--no-dangling"]);
        git(&mirror(&daemon), ["commit-graph", "verify"]);
    }
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

/// Ways to make a ref name a missing object. Each function gets the mirror and the name of the ref.
const BREAKS: &[fn(&Path, &str)] = &[
    |mirror, name| {
        write_file(&mirror.join(name), format!("{GHOST}\n"));
    },
    |mirror, name| {
        git(mirror, ["pack-refs", "--all"]);
        let path = mirror.join("packed-refs");
        let refs = fs::read_to_string(&path).unwrap();
        let to_ghost = |line: &str| match line.split_once(' ') {
            Some((_, found)) if found == name => format!("{GHOST} {name}\n"),
            _ => format!("{line}\n"),
        };
        overwrite(
            &path,
            refs.lines().map(to_ghost).collect::<String>().as_bytes(),
        );
    },
];
const GHOST: &str = "1212121212121212121212121212121212121212";

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_with_a_missing_object_is_fetched_again_and_affects_no_other_ref() {
    let log = CapturedLog::start();
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    let old = commit_and_push(&work, "one");
    git(&work, ["push", "-q", "origin", "main:other", "main:third"]);
    git(&work, ["tag", "-a", "-m", "x", "v1"]);
    git(&work, ["push", "-q", "origin", "v1"]);
    daemon.refresh().await;
    let first = packs(&mirror(&daemon), "pack");

    // All repairs happen within an hour, so the limit for rebuilds must not apply to them.
    for name in ["refs/heads/other", "refs/heads/main", "refs/tags/v1"] {
        for damage in BREAKS {
            let before = log.text().len();
            damage(&mirror(&daemon), name);
            let head = commit_and_push(&work, name);
            git(&work, ["push", "-q", "origin", "main:third"]);

            assert_refresh_gives(&daemon, &head, name).await;
            let upstream = git(&daemon.upstream(), ["show-ref"]);
            assert_eq!(git(&mirror(&daemon), ["show-ref"]), upstream, "{name}");
            assert!(first.iter().all(|pack| pack.exists()), "{name}");
            let log = log.text().split_off(before);
            let mut warnings = log.lines().filter(|line| line.contains("WARN"));
            assert!(warnings.any(|line| line.contains(name)), "{name}: {log}");
        }
    }
    // Also a detached HEAD.
    git(
        &daemon.upstream(),
        ["update-ref", "--no-deref", "HEAD", &old],
    );
    assert_refresh_gives(&daemon, &old, "a detached HEAD").await;
    write_file(&mirror(&daemon).join("HEAD"), format!("{GHOST}\n"));
    commit_and_push(&work, "more");
    assert_refresh_gives(&daemon, &old, "a HEAD that is gone").await;

    git(&mirror(&daemon), ["fsck", "--no-dangling"]);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

/// Fetching the ref again would not be enough: the other branch would still lack the lost objects.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_rebuilt_if_other_refs_need_the_missing_objects() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let before = packs(&mirror(&daemon), "pack");
    let parent = commit_and_push(&work, "two");
    commit_and_push(&work, "three");
    daemon.refresh().await;
    let mut lost = packs(&mirror(&daemon), "pack");
    lost.retain(|pack| !before.contains(pack));
    git(&work, ["checkout", "-q", "-b", "other", &parent]);
    commit_and_push(&work, "beside three");
    git(&work, ["checkout", "-q", "main"]);
    daemon.refresh().await;

    for pack in lost {
        for extension in ["pack", "idx", "rev"] {
            fs::remove_file(pack.with_extension(extension)).ok();
        }
    }
    let head = commit_and_push(&work, "four");

    assert_refresh_gives(&daemon, &head, "a lost pack").await;
    git(&mirror(&daemon), ["fsck", "--no-dangling"]);
    git(&mirror(&daemon), ["cat-file", "-e", &parent]);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_damaged_repeatedly_is_not_cloned_each_time() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    daemon.refresh().await;
    // This damage stops every git version. git 2.39 repairs some other damage with a fetch.
    let is_it = |(what, _): &&Damage| *what == "refs that can't be read";
    let (_, damage) = DAMAGES.iter().find(is_it).unwrap();
    let push_and_refresh = async || {
        damage(&mirror(&daemon));
        commit_and_push(&work, "more");
        let path = format!("/git/{REPO}/refresh");
        daemon.post(&path, "").await.status()
    };

    assert_eq!(push_and_refresh().await, 200);
    assert_ne!(push_and_refresh().await, 200);

    assert!(!daemon.status().await["failure"].is_null());
    assert_eq!(daemon.get(&stable(), &[]).await.status(), 200);
    let forget = format!("/api/v1/repos/{REPO}/forget");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    daemon.refresh().await;
    File::open(mirror(&daemon).join("HEAD")).unwrap();
}
