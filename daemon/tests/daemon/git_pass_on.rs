//! What goes on to upstream: stock git against a daemon in front of a git server that speaks HTTP.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Method, Response};

use crate::harness::*;
use crate::http_upstream::*;
use crate::pkt;

const WITH_GIT: &str = "git.example.com/org/repo.git";

fn grown_upstream(world: &World) -> (PathBuf, String) {
    let work = world.create_upstream();
    write_file(&work.join("file"), noise(1, 100_000));
    commit_and_push(&work, "one");
    write_file(&work.join("file"), noise(2, 100_000));
    let head = commit_and_push(&work, "two");
    (work, head)
}

async fn state(world: &World) -> String {
    let path = format!("/api/v1/repos/{REPO}");
    let status: serde_json::Value = world.get(&path, &[]).await.json().await.unwrap();
    status["state"].as_str().unwrap().to_owned()
}

async fn post(client: &Client, url: String, body: Vec<u8>) -> Response {
    let mut request = client.post(url).body(body);
    for (name, value) in pkt::HEADERS {
        request = request.header(name, value);
    }
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_mirror_is_cloned_clients_are_passed_on() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&world);
    upstream.set(Mood::HangsForTheMirror);

    for version in ["protocol.version=0", "protocol.version=2"] {
        let to = tempfile::tempdir_in(world.root.path()).unwrap();
        let url = world.url(&format!("/git/{WITH_GIT}"));
        let path = to.path().to_str().unwrap();
        git(
            world.root.path(),
            ["-c", version, "clone", "-q", &url, path],
        );

        assert_eq!(git(to.path(), ["rev-parse", "HEAD"]), head);
    }

    assert_eq!(state(&world).await, "cloning");
    upstream.set(Mood::Good);
    world.refresh().await;
    assert_eq!(state(&world).await, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mirror_lacks_comes_from_upstream() {
    let (world, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let (work, _) = grown_upstream(&world);
    world.refresh().await;
    let url = world.url(&format!("/git/{WITH_GIT}"));

    for version in [
        "protocol.version=0",
        "protocol.version=1",
        "protocol.version=2",
    ] {
        let lacking = commit_and_push(&work, version);
        let to = tempfile::tempdir_in(world.root.path()).unwrap();
        git(to.path(), ["init", "-q"]);
        git(to.path(), ["-c", version, "fetch", "-q", &url, &lacking]);

        assert_eq!(git(to.path(), ["rev-parse", "FETCH_HEAD"]), lacking);
    }
    assert_eq!(
        upstream.seen(&["POST", "repo.git/git-upload-pack"]).len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refs_that_are_not_mirrored_come_from_upstream() {
    let (world, _upstream) = start_behind_http(|_| {}).await;
    let (work, head) = grown_upstream(&world);
    world.refresh().await;
    git(
        &work,
        ["commit", "-q", "--allow-empty", "-m", "of a pull request"],
    );
    git(&work, ["push", "-q", "origin", "HEAD:refs/pull/1/head"]);
    let url = world.url(&format!("/git/{REPO}"));

    let to = tempfile::tempdir_in(world.root.path()).unwrap();
    git(to.path(), ["init", "-q"]);
    git(to.path(), ["fetch", "-q", &url, "refs/pull/1/head"]);

    assert_ne!(git(to.path(), ["rev-parse", "FETCH_HEAD"]), head);
    assert_eq!(git(to.path(), ["rev-parse", "FETCH_HEAD~1"]), head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_through_with_its_credentials_and_is_seen_at_once() {
    let (world, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let (work, _) = grown_upstream(&world);
    world.refresh().await;
    let url = world.url(&format!("/git/{REPO}"));
    let asked = format!("/git/{REPO}/info/refs?service=git-receive-pack");
    let refused = world.get(&asked, &[]).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.headers()["www-authenticate"],
        "Basic realm=\"upstream\""
    );

    // Longer than git's buffer, so that it comes in chunks.
    write_file(&work.join("large"), noise(3, 3_000_000));
    git(&work, ["add", "-A"]);
    git(&work, ["commit", "-q", "-m", "pushed through"]);
    let header = format!("http.extraHeader=Authorization: {TOKEN}");
    git(&work, ["-c", &header, "push", "-q", &url, "HEAD:main"]);

    let head = git(&work, ["rev-parse", "HEAD"]);
    assert_eq!(git(&world.upstream(), ["rev-parse", "main"]), head);
    let listed = git(world.root.path(), ["ls-remote", &url, "HEAD"]);
    assert_eq!(listed, format!("{head}\tHEAD"));
    let reads = upstream.seen(&["service=git-upload-pack"]);
    let has_token = |seen: &Seen| seen.headers.contains_key("authorization");
    assert!(
        !reads.iter().any(has_token),
        "the token went to more than the push"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_go_through_with_allowed_headers_only() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    grown_upstream(&world);
    let headers = [
        ("authorization", TOKEN),
        ("content-type", "application/vnd.git-lfs+json"),
        ("cookie", "secret"),
        ("x-forwarded-for", "10.0.0.1"),
    ];

    let path = format!("/git/{WITH_GIT}/info/lfs/objects/batch?a=b");
    let answer = world.request(Method::POST, &path, &headers).await;
    let missing = world.get(&format!("/git/{WITH_GIT}/raw/main/x"), &[]).await;

    assert_eq!(answer.status(), 202);
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.git-lfs+json"
    );
    assert!(!answer.headers().contains_key("cookie"));
    assert_eq!(missing.status(), 404);
    let seen = upstream.seen(&["POST /org/repo.git/info/lfs/objects/batch?a=b"]);
    assert_eq!(seen[0].headers["authorization"], TOKEN);
    for hidden in ["cookie", "x-forwarded-for"] {
        assert!(!seen[0].headers.contains_key(hidden), "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clones_of_an_unknown_repository_start_one_mirror_clone() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&world);
    upstream.set(Mood::HangsForTheMirror);
    let client = Client::new();

    let clones: Vec<_> = (0..200)
        .map(|_| {
            let (client, head) = (client.clone(), head.clone());
            let base = world.url(&format!("/git/{WITH_GIT}"));
            tokio::spawn(async move {
                let refs = client.get(format!("{base}/info/refs?service=git-upload-pack"));
                let refs = refs
                    .header("git-protocol", "version=2")
                    .send()
                    .await
                    .unwrap();
                assert_eq!(refs.status(), 200);
                refs.bytes().await.unwrap();
                let url = format!("{base}/git-upload-pack");
                let listed = post(&client, url.clone(), pkt::ls_refs()).await;
                assert!(listed.text().await.unwrap().contains(&head));
                let pack = post(&client, url, pkt::fetch(&head)).await;
                pack.bytes().await.unwrap()
            })
        })
        .collect();
    let mut packs = Vec::new();
    for clone in clones {
        packs.push(clone.await.unwrap());
    }

    assert!(packs.iter().all(|pack| pack.len() > 200_000));
    assert_eq!(state(&world).await, "cloning");
    // One clone, which hangs at its first request.
    assert_eq!(upstream.seen(&["/org/repo/"]).len(), 1);
    let passed = upstream.seen(&["/org/repo.git/"]).len();
    assert!(passed < 300, "{passed} of 600 requests went to upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_serves_all_who_ask_the_same_and_outlives_the_first() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    grown_upstream(&world);
    upstream.set(Mood::Hangs);
    let url = world.url(&format!(
        "/git/{WITH_GIT}/info/refs?service=git-upload-pack"
    ));
    let ask = |token: Option<&str>| {
        let mut request = Client::new().get(&url);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        tokio::spawn(async move { request.send().await.unwrap().bytes().await.unwrap() })
    };
    let passed = || upstream.seen(&["repo.git/info/refs"]).len();
    let first = ask(None);
    eventually(|| passed() == 1).await;

    let second = ask(None);
    let third = ask(None);
    // Requests with credentials are never shared; when theirs has come, the others have, too.
    let (own, other) = (ask(Some(TOKEN)), ask(Some("Bearer other")));
    eventually(|| passed() == 3).await;
    first.abort();
    upstream.set(Mood::Good);

    let answers = [second, third, own, other];
    for answer in answers {
        let text = String::from_utf8(answer.await.unwrap().to_vec()).unwrap();
        assert!(text.contains("refs/heads/main"), "{text}");
    }
    assert!(passed() <= 4, "{} requests went to upstream", passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_breaks_the_connection_of_all() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&world);
    upstream.set(Mood::Breaks);
    let url = world.url(&format!("/git/{WITH_GIT}/git-upload-pack"));

    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(post(&Client::new(), url.clone(), pkt::fetch(&head)).await);
    }
    upstream.set(Mood::Good);

    assert_eq!(upstream.seen(&["repo.git/git-upload-pack"]).len(), 1);
    for answer in begun {
        assert_eq!(answer.status(), 200);
        let all = answer.bytes().await;
        assert!(all.is_err(), "a part was taken for the whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_leaves_other_repositories_served() {
    let (world, upstream) = start_behind_http(|config| {
        let local = config.data_dir.with_file_name("upstream");
        let local = format!("file://{}", local.display());
        config
            .upstreams
            .insert("local.example.com".to_owned(), local);
        config.ref_check_interval = Duration::ZERO;
        config.ref_check_timeout = Duration::from_millis(300);
    })
    .await;
    let (_, head) = grown_upstream(&world);
    world.refresh().await;
    upstream.set(Mood::Hangs);
    let url = world.url("/git/git.example.com/org/unknown/info/refs?service=git-upload-pack");
    let hanging = tokio::spawn(async move { reqwest::get(url).await.unwrap().status() });
    eventually(|| !upstream.seen(&["/org/unknown/"]).is_empty()).await;

    let stale = format!("/git/{REPO}/info/refs?service=git-upload-pack");
    let stale = world.get(&stale, &[]).await;
    let other = world.url("/git/local.example.com/org/repo");
    let listed = git(world.root.path(), ["ls-remote", &other, "HEAD"]);

    assert_eq!(listed, format!("{head}\tHEAD"));
    assert_eq!(stale.status(), 200);
    assert_eq!(stale.headers()["x-cachew-stale"], "upstream_failed");
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_share_one_check_of_upstream() {
    let (world, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::ZERO;
    })
    .await;
    grown_upstream(&world);
    world.refresh().await;
    let checks = || upstream.seen(&["GET /org/repo/info/refs"]).len();
    let before = checks();
    upstream.set(Mood::HangsForTheMirror);

    let url = world.url(&format!("/git/{REPO}/info/refs?service=git-upload-pack"));
    let ask = || {
        let url = url.clone();
        tokio::spawn(async move { reqwest::get(url).await.unwrap().status() })
    };
    let asked: Vec<_> = (0..40).map(|_| ask()).collect();
    eventually(|| checks() > before).await;
    upstream.set(Mood::Good);
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }

    let checks = checks() - before;
    assert!(checks <= 10, "{checks} checks for 40 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_within_upstream_only() {
    let (world, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&world);
    let refs = "info/refs?service=git-upload-pack";

    let moved = format!("/git/git.example.com/org/moved.git/{refs}");
    let followed = world.get(&moved, &[]).await;
    let push = "/git/git.example.com/org/moved.git/info/refs?service=git-receive-pack";
    let no_redirects = Client::builder().redirect(reqwest::redirect::Policy::none());
    let to_push = no_redirects.build().unwrap().get(world.url(push));
    let sent_there = to_push.send().await.unwrap();
    upstream.set(Mood::RedirectsAway);
    let away = world.get(&format!("/git/{WITH_GIT}/{refs}"), &[]).await;

    assert_eq!(followed.status(), 200);
    assert!(followed.text().await.unwrap().contains(&head));
    assert_eq!(sent_there.status(), 301);
    assert_eq!(
        sent_there.headers()["location"],
        push.replace("moved", "repo").as_str()
    );
    assert_eq!(away.status(), 502);
    assert!(!away.headers().contains_key("location"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_can_be_the_upstream_of_another() {
    let first = World::start().await;
    let (_, head) = grown_upstream(&first);
    let url = first.url("/git/git.example.com");
    let second = World::start_with(|config| {
        config.upstreams = [("git.example.com".to_owned(), url)].into();
    })
    .await;

    let passed_on = git(
        second.root.path(),
        ["ls-remote", &second.url(&format!("/git/{REPO}")), "HEAD"],
    );
    second.refresh().await;
    let mirrored = git(
        second.root.path(),
        ["ls-remote", &second.url(&format!("/git/{REPO}")), "HEAD"],
    );

    assert_eq!(passed_on, format!("{head}\tHEAD"));
    assert_eq!(mirrored, passed_on);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_update_takes_long_fresh_refs_come_from_upstream() {
    let (world, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::ZERO;
        config.ref_check_timeout = Duration::from_millis(500);
    })
    .await;
    let (work, _) = grown_upstream(&world);
    world.refresh().await;
    upstream.set(Mood::HangsForTheMirrorsFetch);
    let url = world.url(&format!("/git/{WITH_GIT}"));

    for version in ["protocol.version=0", "protocol.version=2"] {
        let head = commit_and_push(&work, version);
        let to = tempfile::tempdir_in(world.root.path()).unwrap();
        let path = to.path().to_str().unwrap();
        git(
            world.root.path(),
            ["-c", version, "clone", "-q", &url, path],
        );

        assert_eq!(git(to.path(), ["rev-parse", "HEAD"]), head, "{version}");
    }
}
