//! Publishing: the content of snapshots, the bytes that are written, and retention.

use std::fs;
use std::time::Duration;

use cachewfs_format::PackKind;

use crate::support::test_daemon::*;

#[tokio::test(flavor = "multi_thread")]
async fn both_archives_match_git_clones() {
    let daemon = TestDaemon::start_with(|config| config.tip_commits = 2).await;
    let work = daemon.create_upstream();
    fill(&work);
    let head = commit_and_push(&work, "last");

    let answer = daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;
    let mirror = daemon.extract("mirror.tar.zst").await;

    assert_eq!(answer["snapshot"], head);
    assert_eq!(answer["moved"], true);
    assert_good_clone(&clone);
    assert_eq!(
        git(&clone, ["rev-parse", "HEAD", "origin/main"]),
        format!("{head}\n{head}")
    );
    let upstream = daemon.upstream();
    let url = format!("file://{}", upstream.with_extension("").display());
    assert_eq!(git(&clone, ["remote", "get-url", "origin"]), url);
    assert_eq!(
        git(&clone, ["branch", "-r"]),
        "origin/HEAD -> origin/main\n  origin/main\n  origin/side"
    );
    git(&mirror, ["fsck", "--strict"]);
    assert_eq!(git(&mirror, ["show-ref"]), git(&upstream, ["show-ref"]));
    assert_eq!(git(&mirror, ["rev-parse", "--is-bare-repository"]), "true");
    let count = ["rev-list", "--objects", "--all", "--count"];
    assert_eq!(git(&mirror, count), git(&upstream, count));
    let manifest = daemon.manifest(&head);
    let kinds: Vec<_> = manifest.packs.iter().map(|pack| pack.kind).collect();
    assert_eq!(
        kinds,
        [
            PackKind::Tip,
            PackKind::Recent,
            PackKind::Commits,
            PackKind::Trees,
            PackKind::History
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_commit_adds_one_pack_and_writes_little() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "last");
    daemon.refresh().await;
    let before = (daemon.manifest(&first), daemon.stored_bytes());

    write_file(&work.join("src/0/0.txt"), "changed\n");
    let second = commit_and_push(&work, "one more");
    let answer = daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert_eq!(answer["snapshot"], second);
    let after = daemon.manifest(&second);
    assert_eq!(after.packs.len(), before.0.packs.len() + 1);
    let is_increment = |pack: &&cachewfs_format::PublishedPack| pack.kind == PackKind::Increment;
    assert_eq!(after.packs.iter().filter(is_increment).count(), 1);
    let written = daemon.stored_bytes() - before.1;
    let size = after
        .archives
        .values()
        .map(|archive| archive.size)
        .max()
        .unwrap();
    assert!(
        written < size / 20,
        "{written} bytes for an archive of {size}"
    );
    assert_good_clone(&clone);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_part_in_the_store_is_rebuilt() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "last");
    daemon.refresh().await;
    for run in daemon.manifest(&first).runs {
        let id = run.index_part.segment.id.to_string();
        let path = daemon.store().join("segments").join(id);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::remove_file(&path).unwrap();
        write_file(&path, bytes);
    }

    write_file(&work.join("src/0/0.txt"), "changed\n");
    let second = commit_and_push(&work, "one more");
    let answer = daemon.refresh().await;

    assert_eq!(answer["snapshot"], second);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_repository_with_many_tags_writes_few_of_them() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "last");
    let tags = (0..20_000).map(|number| format!("create refs/tags/t{number:05} {first}\n"));
    let tags = tags.collect::<Vec<_>>().concat();
    git_with_input(
        &daemon.upstream(),
        &["update-ref", "--stdin"],
        tags.as_bytes(),
    );
    git(&daemon.upstream(), ["pack-refs", "--all"]);
    daemon.refresh().await;
    let before = daemon.stored_bytes();

    write_file(&work.join("src/0/0.txt"), "changed\n");
    commit_and_push(&work, "one more");
    daemon.refresh().await;
    let mirror = daemon.extract("mirror.tar.zst").await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    let written = daemon.stored_bytes() - before;
    let tags_len = mirror.join("packed-refs").metadata().unwrap().len();
    assert!(
        written < tags_len / 20,
        "{written} bytes for {tags_len} of tags"
    );
    let upstream = daemon.upstream();
    assert_eq!(git(&mirror, ["show-ref"]), git(&upstream, ["show-ref"]));
    let tags = ["for-each-ref", "refs/tags"];
    assert_eq!(git(&clone, tags), git(&upstream, tags));
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishes_keep_few_packs() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    commit_and_push(&work, "last");
    daemon.refresh().await;

    let mut head = String::new();
    for commit in 0..12_u64 {
        write_file(&work.join("small"), noise(commit, 2000));
        head = commit_and_push(&work, "small");
        daemon.refresh().await;
    }
    let clone = daemon.extract("snapshot.tar.zst").await;

    let packs = daemon.manifest(&head).packs;
    assert!(packs.len() <= 8, "{} packs", packs.len());
    assert!(packs.iter().any(|pack| pack.kind == PackKind::Increment));
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_laid_out_anew_when_increments_outgrow_them() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    commit_and_push(&work, "last");
    daemon.refresh().await;

    write_file(&work.join("big"), noise(99, 3_000_000));
    let head = commit_and_push(&work, "big");
    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert!(
        daemon
            .manifest(&head)
            .packs
            .iter()
            .all(|pack| pack.kind != PackKind::Increment)
    );
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_dropped_by_a_force_push_are_retained() {
    let daemon = TestDaemon::start_with(|config| config.relayout_share = 0.0).await;
    let work = daemon.create_upstream();
    fill(&work);
    let dropped = commit_and_push(&work, "dropped");
    daemon.refresh().await;

    git(&work, ["reset", "-q", "--hard", "HEAD~1"]);
    write_file(&work.join("other"), "other\n");
    let head = commit_and_push(&work, "instead");
    daemon.refresh().await;
    let clone = daemon.extract("snapshot.tar.zst").await;

    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), head);
    assert_eq!(git(&clone, ["cat-file", "-t", &dropped]), "commit");
    assert!(!git(&clone, ["show-ref"]).contains(&dropped));
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_commits_are_deleted_after_their_retention() {
    let daemon = TestDaemon::start_with(|config| {
        config.relayout_share = 0.0;
        config.retain_orphans = Duration::ZERO;
    })
    .await;
    let work = daemon.create_upstream();
    fill(&work);
    let dropped = commit_and_push(&work, "dropped");
    daemon.refresh().await;
    git(&work, ["reset", "-q", "--hard", "HEAD~1"]);
    for name in ["a", "b"] {
        write_file(&work.join(name), name);
        commit_and_push(&work, name);
        daemon.refresh().await;
    }

    let clone = daemon.extract("snapshot.tar.zst").await;

    assert!(
        !try_git(&clone, &["cat-file", "-e", &dropped])
            .status
            .success()
    );
    assert_good_clone(&clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_state_never_changes_the_content_of_a_url() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "first");
    daemon.refresh().await;
    let url = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    let before = daemon.get(&url, &[]).await.bytes().await.unwrap();

    let mut ids = vec![first.clone()];
    for _ in 0..2 {
        write_file(&work.join("more"), "more\n");
        commit_and_push(&work, "second");
        ids.push(
            daemon.refresh().await["snapshot"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
        git(&work, ["reset", "-q", "--hard", &first]);
        git(&work, ["push", "-q", "--force", "--all"]);
        ids.push(
            daemon.refresh().await["snapshot"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let after = daemon.get(&url, &[]).await.bytes().await.unwrap();

    assert_eq!(before, after);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_branch_adds_no_pack_and_no_change_adds_no_snapshot() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    fill(&work);
    let head = commit_and_push(&work, "last");
    daemon.refresh().await;

    git(&work, ["push", "-q", "origin", ":side"]);
    let moved = daemon.refresh().await;
    let still = daemon.refresh().await;

    assert_eq!(moved["moved"], true);
    assert!(
        moved["snapshot"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{head}-"))
    );
    let later = daemon.manifest(moved["snapshot"].as_str().unwrap());
    assert_eq!(later.packs, daemon.manifest(&head).packs);
    assert_eq!(still["moved"], false);
    assert_eq!(still["snapshot"], moved["snapshot"]);
    let clone = daemon.extract("snapshot.tar.zst").await;
    assert!(!git(&clone, ["branch", "-r"]).contains("side"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_are_deleted_and_the_current_one_stays_whole() {
    let daemon = TestDaemon::start_with(|config| {
        config.keep_snapshots = 1;
        config.keep_age = Duration::ZERO;
        config.delete_grace = Duration::ZERO;
    })
    .await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "first");
    daemon.refresh().await;

    write_file(&work.join("src/0/0.txt"), "changed\n");
    commit_and_push(&work, "second");
    daemon.refresh().await;

    assert_eq!(
        fs::read_dir(daemon.store().join("snapshots"))
            .unwrap()
            .count(),
        1
    );
    let gone = daemon
        .get(&format!("/git/{REPO}/snapshot/{first}.tar.zst"), &[])
        .await;
    assert_eq!(gone.status(), 404);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_is_kept_for_its_readers_after_its_replacement() {
    let daemon = TestDaemon::start_with(|config| {
        config.keep_snapshots = 1;
        config.keep_age = Duration::from_hours(1);
    })
    .await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "first");
    daemon.refresh().await;
    let before = std::time::SystemTime::now() - Duration::from_hours(48);
    for part in ["snapshots", "segments"] {
        for entry in fs::read_dir(daemon.store().join(part)).unwrap() {
            let file = fs::File::open(entry.unwrap().path()).unwrap();
            file.set_modified(before).unwrap();
        }
    }

    write_file(&work.join("src/0/0.txt"), "changed\n");
    commit_and_push(&work, "second");
    daemon.refresh().await;

    let url = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    let still = daemon.get(&url, &[]).await;
    assert_eq!(still.status(), 200);
    still.bytes().await.unwrap();
}
