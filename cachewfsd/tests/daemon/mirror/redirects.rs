//! Upstreams that redirect to another spelling, another name or another server.

use cachewfs_daemon::{AuthConfig, NewToken};
use reqwest::redirect::Policy;

use crate::support::http_upstream::*;
use crate::support::test_daemon::*;

const MOVED: &str = "git.example.com/org/moved";
const REFS: &str = "info/refs?service=git-upload-pack";

/// Starts a daemon whose upstream has renamed `org/moved` to `org/repo`. Only the holder of the
/// token may read `org/repo`.
async fn start_with_renamed() -> (TestDaemon, HttpUpstream, NewToken) {
    let directory = tempfile::tempdir().unwrap().keep();
    let token = NewToken::generate().unwrap();
    let (tokens, policy) = (directory.join("tokens"), directory.join("policy.rego"));
    write_file(&tokens, format!("{}\n", token.line("alice", &[]).unwrap()));
    let text = format!(
        "package cachewfs\nimport rego.v1\ndefault allow := false\nhide := true\n\
         allow if input.repo != \"{REPO}\"\nallow if input.subject == \"alice\""
    );
    write_file(&policy, text);
    let (daemon, upstream) = start_behind_http(|config| {
        config.auth = AuthConfig {
            tokens_file: Some(tokens),
            policy: Some(policy),
        };
    })
    .await;
    (daemon, upstream, token)
}

async fn get(daemon: &TestDaemon, path: &str, token: Option<&NewToken>) -> reqwest::Response {
    let client = reqwest::Client::builder().redirect(Policy::none());
    let mut request = client.build().unwrap().get(daemon.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token.secret());
    }
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repository_is_served_only_under_its_new_name() {
    let (daemon, _upstream, token) = start_with_renamed().await;
    let (_, head) = grown_upstream(&daemon);
    let (archive, refs) = (
        format!("/git/{MOVED}/snapshot.tar.zst"),
        format!("/git/{MOVED}.git/{REFS}"),
    );

    // A client that may not read the new name learns nothing: the repository seems not to exist.
    for path in [&archive, &refs] {
        let absent = get(&daemon, path, None).await;
        assert!(!absent.headers().contains_key("location"), "{path}");
        let text = absent.text().await.unwrap();
        assert!(
            text.contains("upstream_not_found") && !text.contains("org/repo"),
            "{text}"
        );
    }
    let known = get(&daemon, &archive, Some(&token)).await;
    let (status, text) = (known.status(), known.text().await.unwrap());
    assert_eq!(status, 404);
    assert!(
        text.contains("upstream_moved") && text.contains(REPO),
        "{text}"
    );
    let sent_there = get(&daemon, &refs, Some(&token)).await;
    assert_eq!(sent_there.status(), 301);
    assert_eq!(
        header(&sent_there, "location"),
        format!("/git/{REPO}.git/{REFS}")
    );
    for path in [format!("/api/v1/repos/{MOVED}"), "/api/v1/repos".to_owned()] {
        let text = get(&daemon, &path, None).await.text().await.unwrap();
        assert!(
            !text.contains("org/repo") && !text.contains("upstream_moved"),
            "{text}"
        );
    }

    let url = daemon.url(&format!("/git/{MOVED}"));
    let header = format!("http.extraHeader=Authorization: Bearer {}", token.secret());
    let listed = git(
        daemon.root.path(),
        ["-c", &header, "ls-remote", &url, "HEAD"],
    );
    assert_eq!(listed, format!("{head}\tHEAD"));
    let mirrors = daemon.root.path().join("data/mirrors");
    assert!(!mirrors.join(format!("{MOVED}.git")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_a_renamed_repository_stays_as_it_was() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = std::time::Duration::ZERO;
    })
    .await;
    let before = commit_and_push(&daemon.create_upstream_at("org/healthy", "healthy"), "one");
    let refresh = "/git/git.example.com/org/healthy/refresh";
    assert_eq!(daemon.post(refresh, "").await.status(), 200);
    let (_, head) = grown_upstream(&daemon);

    upstream.rename("healthy", "repo");
    let refused = code(daemon.post(refresh, "").await).await;
    let archive = get(
        &daemon,
        "/git/git.example.com/org/healthy/snapshot.tar.zst",
        None,
    )
    .await;
    let url = daemon.url("/git/git.example.com/org/healthy");
    let listed = git(daemon.root.path(), ["ls-remote", &url, "HEAD"]);

    assert_eq!(refused, (404, "upstream_moved".to_owned()));
    assert_eq!(header(&archive, "x-cachew-snapshot-commit"), before);
    // The daemon redirects git to the new name.
    assert_eq!(listed, format!("{head}\tHEAD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_redirect_to_another_server() {
    let (daemon, upstream) = start_behind_http(|_| {}).await;
    grown_upstream(&daemon);
    let internal = HttpUpstream::start(daemon.root.path().join("upstream")).await;
    upstream.set(UpstreamMode::RedirectsTo(internal.port()));

    let refreshed = daemon.post(&format!("/git/{REPO}/refresh"), "").await;
    let archive = get(&daemon, &stable(), None).await;
    let passed = get(&daemon, &format!("/git/{REPO}/{REFS}"), None).await;

    let expected = (502, "upstream_redirects".to_owned());
    assert_eq!(code(refreshed).await, expected);
    assert_eq!(code(archive).await, expected);
    assert_eq!(passed.status(), 502);
    assert!(internal.seen(&[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_redirect_to_another_spelling() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.ref_check_interval = std::time::Duration::ZERO;
    })
    .await;
    let (work, head) = grown_upstream(&daemon);
    upstream.set(UpstreamMode::WantsGitSuffix);

    assert_eq!(daemon.refresh().await["snapshot"], head);
    let new = commit_and_push(&work, "three");
    let asked_before = upstream.seen(&["GET /org/repo/info/refs"]).len();
    assert_eq!(daemon.refresh().await["snapshot"], new);
    let url = daemon.url(&format!("/git/{REPO}"));
    let listed = git(daemon.root.path(), ["ls-remote", &url, "HEAD"]);

    assert_eq!(listed, format!("{new}\tHEAD"));
    // The daemon remembers the spelling, so no request goes to the old one.
    let asked = upstream.seen(&["GET /org/repo/info/refs"]).len();
    assert_eq!(asked, asked_before);
}
