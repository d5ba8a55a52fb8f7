//! Maintenance keeps mirrors fast to serve, however many pushes come.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

fn packs(daemon: &TestDaemon) -> usize {
    let path = format!("data/mirrors/{REPO}.git/objects/pack");
    let entries = std::fs::read_dir(daemon.root.path().join(path)).unwrap();
    let is_pack = |path: PathBuf| path.extension().is_some_and(|found| found == "pack");
    entries
        .filter(|entry| is_pack(entry.as_ref().unwrap().path()))
        .count()
}

async fn push(daemon: &TestDaemon, work: &Path, number: u64) {
    write_file(
        &work.join(format!("file{}", number % 7)),
        noise(number, 3000),
    );
    git(work, ["add", "-A"]);
    git(work, ["commit", "-q", "-m", &format!("push {number}")]);
    git(work, ["push", "-q", "origin", "main"]);
    daemon.refresh().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sixty_pushes_a_mirror_has_few_packs_and_was_served_all_the_time() {
    let (daemon, gate) = Gate::start(|config| {
        config.mirrors.repack_interval = Duration::ZERO;
    })
    .await;
    let work = daemon.create_upstream();
    push(&daemon, &work, 0).await;
    let (url, root) = (
        daemon.url(&format!("/git/{REPO}")),
        daemon.root.path().to_owned(),
    );
    let mut clones = tokio::task::JoinSet::new();

    for number in 1..=60 {
        push(&daemon, &work, number).await;
        // These clones run around the times of the repacks.
        if matches!(number % 20, 0..=2 | 19) {
            let (url, root) = (url.clone(), root.clone());
            clones.spawn_blocking(move || {
                let copy = root.join(format!("copy{number}"));
                git(
                    &root,
                    ["clone", "-q", "--bare", &url, copy.to_str().unwrap()],
                );
                git(&copy, ["fsck", "--strict", "--connectivity-only"]);
            });
        }
    }
    clones.join_all().await;

    eventually(|| packs(&daemon) <= 20).await;
    // One repack for each 20 packs. During a repack, further pushes add packs.
    let repacks = gate.runs("repack");
    assert!((2..=4).contains(&repacks), "{repacks}");
    let mirror = daemon.root.path().join(format!("data/mirrors/{REPO}.git"));
    git(&mirror, ["fsck", "--strict"]);
    git(&mirror, ["multi-pack-index", "verify"]);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_are_not_rolled_up_more_often_than_the_interval_allows() {
    let (daemon, gate) = Gate::start(|config| config.mirrors.repack_packs = 3).await;
    let work = daemon.create_upstream();

    for number in 0..9 {
        push(&daemon, &work, number).await;
    }

    assert_eq!(gate.runs("repack"), 1);
    assert!(packs(&daemon) > 3);
    for number in 9..23 {
        push(&daemon, &work, number).await;
    }
    // More than five times `repack_packs`, so the daemon does not wait for the interval.
    eventually(|| gate.runs("repack") == 2 && packs(&daemon) <= 15).await;
}
