//! Requests that are passed on: stock git against a daemon in front of an upstream that speaks
//! HTTP.

use std::time::Duration;

use reqwest::{Client, Method};

use crate::support::captured_log::CapturedLog;
use crate::support::http_upstream::*;
use crate::support::pkt;
use crate::support::test_daemon::*;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_passed_on_while_the_mirror_is_cloned() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&daemon);
    upstream.set(UpstreamMode::HangsForMirror);

    for version in ["protocol.version=0", "protocol.version=2"] {
        let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
        let url = daemon.url(&format!("/git/{WITH_GIT}"));
        let path = to.path().to_str().unwrap();
        git(
            daemon.root.path(),
            ["-c", version, "clone", "-q", &url, path],
        );

        assert_eq!(git(to.path(), ["rev-parse", "HEAD"]), head);
    }

    assert_eq!(daemon.status().await["state"], "cloning");
    upstream.set(UpstreamMode::Good);
    daemon.refresh().await;
    assert_eq!(daemon.status().await["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_the_mirror_lacks_come_from_upstream() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let (work, _) = grown_upstream(&daemon);
    daemon.refresh().await;
    let url = daemon.url(&format!("/git/{WITH_GIT}"));

    for version in [
        "protocol.version=0",
        "protocol.version=1",
        "protocol.version=2",
    ] {
        let lacking = commit_and_push(&work, version);
        let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
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
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (work, head) = grown_upstream(&daemon);
    git(&work, ["branch", "feature/x", "HEAD~1"]);
    commit_and_push(&work, "three");
    daemon.refresh().await;
    git(
        &work,
        ["commit", "-q", "--allow-empty", "-m", "of a pull request"],
    );
    git(&work, ["push", "-q", "origin", "HEAD:refs/pull/1/head"]);
    let url = daemon.url(&format!("/git/{WITH_GIT}"));
    let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
    git(to.path(), ["init", "-q"]);
    let passed = || upstream.seen(&["POST", "repo.git/git-upload-pack"]).len();

    git(to.path(), ["fetch", "-q", &url, "feature/x"]);
    assert_eq!(
        git(to.path(), ["rev-parse", "FETCH_HEAD"]),
        git(&work, ["rev-parse", "feature/x"])
    );
    assert_eq!(
        passed(),
        0,
        "the request for a mirrored branch went to upstream"
    );

    git(to.path(), ["fetch", "-q", &url, "refs/pull/1/head"]);
    assert_eq!(git(to.path(), ["rev-parse", "FETCH_HEAD~2"]), head);
    assert_eq!(
        passed(),
        2,
        "the listing, and the fetch of the missing commit"
    );

    upstream.set(UpstreamMode::Fails);
    let missing = try_git(to.path(), &["fetch", &url, "refs/pull/2/head"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains("couldn't find remote ref"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_passed_on_with_its_credentials_and_visible_at_once() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let log = CapturedLog::start();
    let (work, _) = grown_upstream(&daemon);
    daemon.refresh().await;
    let url = daemon.url(&format!("/git/{REPO}"));
    let asked = format!("/git/{REPO}/info/refs?service=git-receive-pack");
    let refused = daemon.get(&asked, &[]).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.headers()["www-authenticate"],
        "Basic realm=\"upstream\""
    );

    // Longer than git's buffer, so that git sends the body in chunks.
    write_file(&work.join("large"), noise(3, 3_000_000));
    git(&work, ["add", "-A"]);
    git(&work, ["commit", "-q", "-m", "pushed through"]);
    let header = format!("http.extraHeader=Authorization: {TOKEN}");
    git(&work, ["-c", &header, "push", "-q", &url, "HEAD:main"]);

    let head = git(&work, ["rev-parse", "HEAD"]);
    assert_eq!(git(&daemon.upstream(), ["rev-parse", "main"]), head);
    let listed = git(daemon.root.path(), ["ls-remote", &url, "HEAD"]);
    assert_eq!(listed, format!("{head}\tHEAD"));
    let reads = upstream.seen(&["service=git-upload-pack"]);
    let has_token = |seen: &SeenRequest| seen.headers.contains_key("authorization");
    assert!(
        !reads.iter().any(has_token),
        "requests other than the push had the token"
    );
    let log = log.text();
    assert!(log.contains("Published"), "nothing was logged");
    assert!(!log.contains("t0ken"), "the token was logged: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_are_passed_on_with_allowed_headers_only() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    grown_upstream(&daemon);
    let headers = [
        ("authorization", TOKEN),
        ("content-type", "application/vnd.git-lfs+json"),
        ("cookie", "secret"),
        ("x-forwarded-for", "10.0.0.1"),
    ];

    let path = format!("/git/{WITH_GIT}/info/lfs/objects/batch?a=b");
    let answer = daemon.request(Method::POST, &path, &headers).await;
    let missing = daemon
        .get(&format!("/git/{WITH_GIT}/raw/main/x"), &[])
        .await;

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
async fn redirects_are_followed_within_upstream_only() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&daemon);
    let refs = "info/refs?service=git-upload-pack";

    let moved = format!("/git/git.example.com/org/moved.git/{refs}");
    let followed = daemon.get(&moved, &[]).await;
    let push = "/git/git.example.com/org/moved.git/info/refs?service=git-receive-pack";
    let no_redirects = Client::builder().redirect(reqwest::redirect::Policy::none());
    let to_push = no_redirects.build().unwrap().get(daemon.url(push));
    let sent_there = to_push.send().await.unwrap();
    upstream.set(UpstreamMode::RedirectsAway);
    let away = daemon.get(&format!("/git/{WITH_GIT}/{refs}"), &[]).await;

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
    let first = TestDaemon::start().await;
    let (_, head) = grown_upstream(&first);
    let url = first.url("/git/git.example.com");
    let second = TestDaemon::start_with(|config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
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
async fn the_credentials_of_the_configuration_are_for_reading_only() {
    let root = tempfile::tempdir().unwrap();
    let upstream = HttpUpstream::start(root.path().join("upstream")).await;
    let url = upstream.url().replace("http://", "http://me:s3cret@");
    let daemon = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
    })
    .await;
    grown_upstream(&daemon);
    upstream.set(UpstreamMode::HangsForMirror);
    let base = format!("/git/{WITH_GIT}");

    let read = format!("{base}/info/refs?service=git-upload-pack");
    assert_eq!(daemon.get(&read, &[]).await.status(), 200);
    assert_eq!(
        daemon
            .get(&read, &[("authorization", TOKEN)])
            .await
            .status(),
        200
    );
    let push = format!("{base}/info/refs?service=git-receive-pack");
    assert_eq!(daemon.get(&push, &[]).await.status(), 401);
    let lfs = format!("{base}/info/lfs/objects/batch");
    daemon.request(Method::POST, &lfs, &[]).await;

    let sent = |part: &str| -> Vec<Option<String>> {
        let sent = |seen: SeenRequest| {
            let value = seen.headers.get("authorization")?;
            Some(value.to_str().unwrap().to_owned())
        };
        upstream
            .seen(&["repo.git", part])
            .into_iter()
            .map(sent)
            .collect()
    };
    // "me:s3cret" in base64.
    let own = Some("Basic bWU6czNjcmV0".to_owned());
    assert_eq!(sent("upload-pack"), [own, Some(TOKEN.to_owned())]);
    assert_eq!(sent("receive-pack"), [None]);
    assert_eq!(sent("lfs"), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_too_long_for_memory_is_passed_on_whole() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::from_hours(1);
    })
    .await;
    let (work, old) = grown_upstream(&daemon);
    daemon.refresh().await;
    write_file(&work.join("new"), noise(5, 10_000));
    let lacking = commit_and_push(&work, "unseen");
    let mut lines = vec![
        "command=fetch".to_owned(),
        String::new(),
        "no-progress\n".to_owned(),
    ];
    lines.push(format!("want {lacking}\n"));
    lines.extend((0..3000).map(|number| format!("have {number:040x}\n")));
    lines.extend([format!("have {old}\n"), "done\n".to_owned()]);
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();

    let url = daemon.url(&format!("/git/{WITH_GIT}/git-upload-pack"));
    let answer = pkt::post(&Client::new(), url, pkt::packets(&lines)).await;

    assert_eq!(answer.status(), 200);
    let pack = answer.bytes().await.unwrap();
    // A small pack: upstream got the whole list, also the last `have`, the only commit it knows.
    assert!(
        (10_000..100_000).contains(&pack.len()),
        "{} bytes",
        pack.len()
    );
    assert_eq!(
        upstream.seen(&["POST", "repo.git/git-upload-pack"]).len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_one_request_and_works_with_old_servers_too() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::ZERO;
    })
    .await;
    let (work, before) = grown_upstream(&daemon);
    daemon.refresh().await;
    let url = daemon.url(&format!("/git/{REPO}"));
    let head = || git(daemon.root.path(), ["ls-remote", &url, "HEAD"]);
    let asked = || upstream.seen(&["/org/repo/"]).len();
    let asked_before = asked();

    assert_eq!(head(), format!("{before}\tHEAD"));
    assert_eq!(asked() - asked_before, 1);
    for mode in [UpstreamMode::Good, UpstreamMode::OldProtocol] {
        upstream.set(mode);
        let pushed = commit_and_push(&work, &format!("{mode:?}"));
        let asked_before = asked();
        assert_eq!(head(), format!("{pushed}\tHEAD"), "{mode:?}");
        if mode == UpstreamMode::Good {
            // One request for the check, one for the listing that the daemon compares the update
            // with, and three of `git fetch`.
            assert_eq!(asked() - asked_before, 1 + 1 + 3);
        }
    }
    // HEAD names another branch.
    upstream.set(UpstreamMode::Good);
    git(&work, ["push", "-q", "origin", "HEAD~1:refs/heads/other"]);
    git(
        &daemon.upstream(),
        ["symbolic-ref", "HEAD", "refs/heads/other"],
    );
    let other = git(&work, ["rev-parse", "HEAD~1"]);
    assert_eq!(head(), format!("{other}\tHEAD"));
}
