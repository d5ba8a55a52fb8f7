//! Bombs: a few bytes from upstream or a client that git or the daemon would expand enormously.

use std::time::{Duration, Instant};

use reqwest::Client;

use crate::support::pkt;
use crate::support::test_daemon::*;

/// Pushes a commit whose tree has ten levels of ten names each, all naming one subtree: twelve
/// objects that stand for ten thousand million files.
fn push_bomb(daemon: &TestDaemon) -> String {
    let work = daemon.create_upstream();
    write_file(&work.join("file"), "filter=lfs\n");
    commit_and_push(&work, "one");
    let mut entry = format!("100644 blob {}", git(&work, ["rev-parse", "HEAD:file"]));
    for _ in 0..10 {
        let lines: Vec<_> = (0..10).map(|name| format!("{entry}\t{name}\n")).collect();
        let tree = git_with_input(&work, &["mktree"], lines.concat().as_bytes());
        entry = format!("040000 tree {}", String::from_utf8(tree).unwrap().trim());
    }
    let tree = entry.rsplit(' ').next().unwrap();
    let commit = git(&work, ["commit-tree", "-m", "bomb", tree]);
    let refspec = format!("{commit}:refs/heads/main");
    git(&work, ["push", "-q", "--force", "origin", &refspec]);
    commit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_too_many_paths_has_a_mirror_archive_only() {
    let limit = Duration::from_secs(20);
    let daemon = TestDaemon::start_with(|config| {
        config.git.pack_timeout = limit;
        config.git_http.answer_timeout = limit;
    })
    .await;
    let commit = push_bomb(&daemon);
    let began = Instant::now();

    assert_eq!(daemon.refresh().await["snapshot"], commit);

    let path = |archive: &str| format!("/git/{REPO}/{archive}");
    let checkout = daemon.get(&path("snapshot.tar.zst"), &[]).await;
    assert_eq!(checkout.status(), 404);
    assert!(checkout.text().await.unwrap().contains("no_checkout"));
    let lfs = daemon.get(&path("lfs-snapshot.tar.zst"), &[]).await;
    assert!(!lfs.status().is_success());
    let why = lfs.text().await.unwrap();
    assert!(why.contains("11111111110 files and directories"), "{why}");
    let mirror = daemon.extract("mirror.tar.zst").await;
    assert_eq!(git(&mirror, ["rev-parse", "HEAD"]), commit);
    assert_eq!(
        git(&mirror, ["rev-list", "--objects", "--count", "HEAD"]),
        "12"
    );
    // This filter would make git visit each path.
    let blob = git(&mirror, ["rev-parse", "HEAD:0/0/0/0/0/0/0/0/0/0"]);
    let (want, filter) = (
        format!("want {commit}\n"),
        format!("filter sparse:oid={blob}\n"),
    );
    let fetch = pkt::packets(&["command=fetch", "", &want, &filter, "done\n"]);
    let filtered = Client::new()
        .post(daemon.url(&path("git-upload-pack")))
        .body(fetch);
    let filtered = pkt::HEADERS
        .iter()
        .fold(filtered, |request, (name, value)| {
            request.header(*name, *value)
        });
    let refusal = filtered.send().await.unwrap().text().await.unwrap();
    assert!(refusal.contains("ERR "), "{refusal}");
    assert!(began.elapsed() < limit, "git visited each path");
}
