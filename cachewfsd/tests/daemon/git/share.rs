//! Many git clients at once, and upstreams that are slow or fail: clients share upstream requests,
//! and a slow repository does not block others.

use std::time::Duration;

use reqwest::Client;

use crate::support::http_upstream::*;
use crate::support::pkt;
use crate::support::test_daemon::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clones_of_an_unknown_repository_start_one_mirror_clone() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&daemon);
    upstream.set(UpstreamMode::HangsForMirror);
    let client = Client::new();

    let clones: Vec<_> = (0..200)
        .map(|_| {
            let (client, head) = (client.clone(), head.clone());
            let base = daemon.url(&format!("/git/{WITH_GIT}"));
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
                let listed = pkt::post(&client, url.clone(), pkt::ls_refs()).await;
                assert!(listed.text().await.unwrap().contains(&head));
                let pack = pkt::post(&client, url, pkt::fetch(&head)).await;
                pack.bytes().await.unwrap()
            })
        })
        .collect();
    let mut packs = Vec::new();
    for clone in clones {
        packs.push(clone.await.unwrap());
    }

    assert!(packs.iter().all(|pack| pack.len() > 200_000));
    assert_eq!(daemon.status().await["state"], "cloning");
    // The mirror clone sent one request, which hangs.
    assert_eq!(upstream.seen(&["/org/repo/"]).len(), 1);
    let passed = upstream.seen(&["/org/repo.git/"]).len();
    assert!(passed < 300, "{passed} of 600 requests went to upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_of_all_kinds_start_one_clone() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&daemon);
    upstream.set(UpstreamMode::HangsForMirror);
    let client = Client::new();
    let ask = |number: usize| {
        let base = daemon.url(&format!("/git/{WITH_GIT}"));
        let commits = format!("{{\"commits\":[\"{head}\"]}}");
        let request = match number % 5 {
            0 => client.get(format!("{base}/snapshot.tar.zst")),
            1 => client.get(format!("{base}/mirror.tar.zst")),
            2 => client.get(format!("{base}/info/refs?service=git-upload-pack")),
            3 => client.post(format!("{base}/ensure-refs")).body(commits),
            _ => client.post(format!("{base}/refresh")),
        };
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.bytes().await.unwrap())
        })
    };
    let asked: Vec<_> = (0..500).map(ask).collect();

    // While the clone hangs, archives are streamed and refs come from upstream. The others wait.
    let is_answered = || {
        let is_refs = |number: usize| number % 5 == 2;
        let mut refs = asked
            .iter()
            .enumerate()
            .filter(|(number, _)| is_refs(*number));
        refs.all(|(_, task)| task.is_finished())
    };
    eventually(is_answered).await;
    eventually(|| !upstream.seen(&["/org/repo/"]).is_empty()).await;
    assert_eq!(upstream.seen(&["/org/repo/"]).len(), 1);
    assert_eq!(daemon.status().await["state"], "cloning");
    upstream.set(UpstreamMode::Good);

    for task in asked {
        let (status, body) = task.await.unwrap();
        assert_eq!(status, 200);
        assert!(!body.is_empty());
    }
    // The clone lists refs once and each update twice. One update serves all requests that came
    // during the clone, so there are few runs.
    let listed = upstream.seen(&["GET /org/repo/info/refs"]).len();
    assert!(listed <= 9, "{listed} runs of git asked upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_requests_share_one_response_even_if_the_first_client_leaves() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    grown_upstream(&daemon);
    upstream.set(UpstreamMode::Hangs);
    let url = daemon.url(&format!(
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
    // Requests with credentials are never shared. Once upstream has them, the daemon has also
    // received the earlier `second` and `third`.
    let (own, other) = (ask(Some(TOKEN)), ask(Some("Bearer other")));
    eventually(|| passed() == 3).await;
    first.abort();
    upstream.set(UpstreamMode::Good);

    let answers = [second, third, own, other];
    for answer in answers {
        let text = String::from_utf8(answer.await.unwrap().to_vec()).unwrap();
        assert!(text.contains("refs/heads/main"), "{text}");
    }
    assert!(passed() <= 4, "{} requests went to upstream", passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_response_that_breaks_off_breaks_the_connections_of_all_clients() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    let (_, head) = grown_upstream(&daemon);
    upstream.set(UpstreamMode::Breaks);
    let url = daemon.url(&format!("/git/{WITH_GIT}/git-upload-pack"));

    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(pkt::post(&Client::new(), url.clone(), pkt::fetch(&head)).await);
    }
    upstream.set(UpstreamMode::Good);

    assert_eq!(upstream.seen(&["repo.git/git-upload-pack"]).len(), 1);
    for answer in begun {
        assert_eq!(answer.status(), 200);
        let all = answer.bytes().await;
        assert!(all.is_err(), "the response ended as if it were complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_leaves_other_repositories_served() {
    let (daemon, upstream) = start_behind_http(|config| {
        let local = config.data_dir.path().with_file_name("upstream");
        let local = format!("file://{}", local.display());
        config
            .upstreams
            .insert("local.example.com".to_owned(), local.into());
        config.ref_check_interval = Duration::ZERO;
        config.ref_check_timeout = Duration::from_millis(300);
    })
    .await;
    let (_, head) = grown_upstream(&daemon);
    daemon.refresh().await;
    upstream.set(UpstreamMode::Hangs);
    let url = daemon.url("/git/git.example.com/org/unknown/info/refs?service=git-upload-pack");
    let hanging = tokio::spawn(async move { reqwest::get(url).await.unwrap().status() });
    eventually(|| !upstream.seen(&["/org/unknown/"]).is_empty()).await;

    let stale = format!("/git/{REPO}/info/refs?service=git-upload-pack");
    let stale = daemon.get(&stale, &[]).await;
    let other = daemon.url("/git/local.example.com/org/repo");
    let listed = git(daemon.root.path(), ["ls-remote", &other, "HEAD"]);

    assert_eq!(listed, format!("{head}\tHEAD"));
    assert_eq!(stale.status(), 200);
    assert_eq!(stale.headers()["x-cachew-stale"], "upstream_failed");
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_one_check_of_upstream() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::ZERO;
    })
    .await;
    grown_upstream(&daemon);
    daemon.refresh().await;
    let checks = || upstream.seen(&["POST /org/repo/git-upload-pack"]).len();
    let before = checks();
    upstream.set(UpstreamMode::HangsForMirror);

    let url = daemon.url(&format!("/git/{REPO}/info/refs?service=git-upload-pack"));
    let ask = || {
        let url = url.clone();
        tokio::spawn(async move { reqwest::get(url).await.unwrap().status() })
    };
    let asked: Vec<_> = (0..40).map(|_| ask()).collect();
    eventually(|| checks() > before).await;
    upstream.set(UpstreamMode::Good);
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }

    let checks = checks() - before;
    assert!(checks <= 10, "{checks} checks for 40 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_refs_come_from_upstream_while_an_update_is_slow() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = Duration::ZERO;
        config.ref_check_timeout = Duration::from_millis(500);
    })
    .await;
    let (work, _) = grown_upstream(&daemon);
    daemon.refresh().await;
    upstream.set(UpstreamMode::HangsForMirrorFetch);
    let url = daemon.url(&format!("/git/{WITH_GIT}"));

    for version in ["protocol.version=0", "protocol.version=2"] {
        let head = commit_and_push(&work, version);
        let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
        let path = to.path().to_str().unwrap();
        git(
            daemon.root.path(),
            ["-c", version, "clone", "-q", &url, path],
        );

        assert_eq!(git(to.path(), ["rev-parse", "HEAD"]), head, "{version}");
    }
}
