//! Authorisation: tokens, policies, and a check that every route asks the policy.

use std::path::Path;

use cachewfs_daemon::{AuthConfig, NewToken};
use reqwest::Method;

use crate::support::http_upstream::*;
use crate::support::test_daemon::*;

const TEAM_ONLY: &str = r#"package cachewfs
import rego.v1
default allow := false
allow if { input.action in {"read", "push"}; "team" in input.groups }
allow if { input.action == "admin"; "ops" in input.groups; not input.is_loopback }
"#;

/// Creates the configuration of a policy and one token, whose user is in the groups `team` and
/// `ops`.
fn create_auth(directory: &Path, policy: &str) -> (AuthConfig, NewToken) {
    let token = NewToken::generate().unwrap();
    let groups = ["team".to_owned(), "ops".to_owned()];
    let line = token.line("alice", &groups).unwrap();
    let config = AuthConfig {
        tokens_file: Some(directory.join("tokens")),
        policy: Some(directory.join("policy.rego")),
    };
    write_file(&directory.join("tokens"), format!("{line}\n"));
    write_file(&directory.join("policy.rego"), policy);
    (config, token)
}

async fn start(policy: &str) -> (TestDaemon, NewToken) {
    let root = tempfile::tempdir().unwrap();
    let (auth, token) = create_auth(root.path(), policy);
    let daemon = TestDaemon::start_in(root, |config| config.auth = auth).await;
    (daemon, token)
}

fn bearer(token: &NewToken) -> String {
    format!("Bearer {}", token.secret())
}

/// Returns a path for each pattern in the source code, so that new routes are tested, too.
fn paths_of_all_routes() -> Vec<String> {
    let source = include_str!("../../../../daemon/src/http/route/endpoint.rs");
    let patterns = source.split('"').filter(|text| text.starts_with('/'));
    let id = "1a".repeat(20);
    let mut paths: Vec<String> = patterns
        .map(|pattern| {
            pattern
                .replace("{repo}", REPO)
                .replace("{id}", &id)
                .replace("{file}", "script.js")
                .replace("/git/{rest}", &format!("/git/{WITH_GIT}/{{rest}}"))
                .replace("{rest}", "objects/batch")
        })
        .collect();
    assert!(paths.len() >= 24, "{paths:?}");
    let more = ["/nothing", "/git", "/api/v1/nothing", "/status/nothing"];
    paths.extend(more.map(str::to_owned));
    for service in ["git-upload-pack", "git-receive-pack"] {
        paths.push(format!("/git/{REPO}/info/refs?service={service}"));
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_the_policy() {
    let (daemon, _) = start("package cachewfs\nallow := false").await;

    for path in paths_of_all_routes() {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let method: Method = method.parse().unwrap();
            let response = daemon.request(method.clone(), &path, &[]).await;
            let is_open = path == "/healthz" || path == "/readyz";
            let expected = response.status() == 401;
            assert_eq!(expected, !is_open, "{method} {path}: {}", response.status());
            if !is_open {
                assert_eq!(
                    header(&response, "www-authenticate"),
                    "Basic realm=\"cachewfsd\""
                );
            }
        }
    }
    assert_eq!(daemon.get("/readyz", &[]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_denied_if_the_policy_fails() {
    let policy = "package cachewfs
        import rego.v1
        default allow := true
        allow := false if input.host == \"git.example.com\"
        allow := true if startswith(input.repo, \"git.example.com/\")";
    let (daemon, _) = start(policy).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");

    let undecided = daemon.get(&stable(), &[]).await;

    assert_eq!(code(undecided).await, (500, "policy_failed".to_owned()));
    assert!(
        !daemon
            .root
            .path()
            .join("data/mirrors/git.example.com")
            .exists()
    );
    assert_eq!(daemon.get("/", &[]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_grants_the_access_of_its_groups() {
    let (daemon, token) = start(TEAM_ONLY).await;
    let work = daemon.create_upstream();
    let head = commit_and_push(&work, "one");
    let bearer = bearer(&token);
    let known = [("authorization", &*bearer)];
    let stranger = format!("Bearer {}", NewToken::generate().unwrap().secret());

    let refresh = format!("/git/{REPO}/refresh");
    assert_eq!(
        code(daemon.post(&refresh, "").await).await,
        (401, "unauthenticated".into())
    );
    assert_eq!(
        daemon
            .request(Method::POST, &refresh, &known)
            .await
            .status(),
        200
    );
    let unknown = daemon.get(&stable(), &[("authorization", &stranger)]).await;
    assert_eq!(code(unknown).await, (401, "unauthenticated".into()));
    let beside = daemon
        .get(&stable(), &[("x-cachewfs-token", token.secret())])
        .await;
    assert_eq!(beside.status(), 200);
    let twice = [
        ("authorization", &*bearer),
        ("x-cachewfs-token", token.secret()),
    ];
    assert_eq!(daemon.get(&stable(), &twice).await.status(), 400);
    let metrics = daemon.get("/metrics", &known).await;
    assert_eq!(code(metrics).await, (403, "forbidden".into()));

    let immutable = format!("/git/{REPO}/snapshot/{head}.tar.zst");
    let cached = daemon.get(&immutable, &known).await;
    assert_eq!(
        header(&cached, "cache-control"),
        "private, max-age=31536000, immutable"
    );

    let address = daemon.running.address;
    let clone = |user: &str| {
        let url = format!("http://{user}{address}/git/{WITH_GIT}");
        let to = tempfile::tempdir_in(daemon.root.path()).unwrap().keep();
        try_git(
            daemon.root.path(),
            &["clone", "-q", &url, to.to_str().unwrap()],
        )
    };
    assert!(clone(&format!("git:{}@", token.secret())).status.success());
    assert!(!clone("").status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_calls_from_web_pages_and_proxies_are_refused() {
    let daemon = TestDaemon::start().await;
    let path = format!("/api/v1/repos/{REPO}/relayout");
    let post = async |headers: &[(&str, &str)]| {
        daemon
            .request(Method::POST, &path, headers)
            .await
            .status()
            .as_u16()
    };

    // The call may fail, because the repository does not exist, but it is not forbidden.
    assert_ne!(post(&[]).await, 403);
    for name in ["origin", "x-forwarded-for", "forwarded", "via", "x-real-ip"] {
        assert_eq!(post(&[(name, "http://evil.example")]).await, 403, "{name}");
    }
    let read = daemon
        .get("/api/v1/repos", &[("origin", "http://evil.example")])
        .await;
    assert_eq!(read.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_repository_answers_like_one_that_is_not_there() {
    let policy = format!(
        "package cachewfs\nimport rego.v1\ndefault allow := false\n\
         allow if input.repo != \"{REPO}\"\nallow if input.subject == \"alice\"\nhide := true"
    );
    let (daemon, token) = start(&policy).await;
    commit_and_push(&daemon.create_upstream(), "one");
    let bearer = bearer(&token);
    let known = [("authorization", &*bearer)];
    let refresh = format!("/git/{REPO}/refresh");
    assert_eq!(
        daemon
            .request(Method::POST, &refresh, &known)
            .await
            .status(),
        200
    );

    for path in [
        // The API comes first: later requests make the absent repository known for a while.
        format!("/api/v1/repos/{REPO}"),
        format!("/git/{REPO}/snapshot.tar.zst"),
        format!("/git/{REPO}/info/refs?service=git-upload-pack"),
    ] {
        let hidden = daemon.get(&path, &[]).await;
        let absent = path.replace("org/repo", "org/absent");
        let absent = daemon.get(&absent, &[]).await;

        assert_eq!(hidden.status(), absent.status(), "{path}");
        let (hidden, absent) = (code(hidden).await, code(absent).await);
        assert_eq!(hidden, absent, "{path}");
    }
    let refused = daemon.get(&stable(), &[]).await.text().await.unwrap();
    let absent = stable().replace("org/repo", "org/absent");
    let absent = daemon.get(&absent, &[]).await.text().await.unwrap();
    assert_eq!(refused, absent.replace("org/absent", "org/repo"));
    let list = async |headers: &[(&str, &str)]| {
        daemon
            .get("/api/v1/repos", headers)
            .await
            .text()
            .await
            .unwrap()
    };
    assert!(!list(&[]).await.contains(REPO));
    assert!(list(&known).await.contains(REPO));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_name_bypasses_the_policy() {
    let policy = "package cachewfs\nimport rego.v1\ndefault allow := false\n\
        private if startswith(input.repo, \"git.example.com/org/secret-\")\n\
        allow if not private\nallow if input.subject == \"alice\"";
    let root = tempfile::tempdir().unwrap();
    let (auth, token) = create_auth(root.path(), policy);
    let daemon = TestDaemon::start_in(root, |config| {
        config.auth = auth;
        let upstream = config.upstreams.get_mut("git.example.com").unwrap();
        *upstream = upstream.clone().with_ignore_case(true);
    })
    .await;
    let head = commit_and_push(&daemon.create_upstream_at("org/secret-x", "work"), "one");
    let bearer = bearer(&token);
    let known = [("authorization", &*bearer)];
    let called = |name: &str, what: &str| format!("/git/git.example.com/{name}/{what}");

    for name in ["Org/Secret-X", "org/secret-X.git", "ORG/%53ecret-x"] {
        for what in [
            "snapshot.tar.zst",
            "info/refs?service=git-upload-pack",
            "info/lfs/locks",
            "snapshot.bundle?base=1",
        ] {
            let refused = daemon.get(&called(name, what), &[]).await;
            assert_eq!(
                code(refused).await,
                (401, "unauthenticated".into()),
                "{name} {what}"
            );
        }
        let refresh = called(name, "refresh");
        let refreshed = daemon.request(Method::POST, &refresh, &known).await;
        let refreshed: serde_json::Value = refreshed.json().await.unwrap();
        assert_eq!(refreshed["snapshot"], head, "{name}");
        let api = format!(
            "/api/v1/repos/git.example.com/{}",
            name.trim_end_matches(".git")
        );
        assert_eq!(daemon.get(&api, &[]).await.status(), 401, "{name}");
    }

    // All spellings share one mirror.
    let listed = daemon
        .get("/api/v1/repos", &known)
        .await
        .text()
        .await
        .unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["repos"].as_array().unwrap().len(), 1);
    assert_eq!(listed["repos"][0]["repo"], "git.example.com/org/secret-x");
    let mirrors = daemon.root.path().join("data/mirrors/git.example.com");
    assert_eq!(std::fs::read_dir(mirrors).unwrap().count(), 1);
    let typed = daemon
        .get(&called("Org/Secret-X", "snapshot.tar.zst"), &known)
        .await;
    let place = header(&typed, "content-location");
    assert!(place.contains("/org/secret-x/"), "{place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_snapshots_in_another_spelling_are_not_used() {
    let daemon = TestDaemon::start().await;
    commit_and_push(&daemon.create_upstream_at("Org/Repo", "work"), "one");
    let refresh = "/git/git.example.com/Org/Repo/refresh";
    assert_eq!(daemon.post(refresh, "").await.status(), 200);

    let daemon = TestDaemon::start_in(daemon.stop().await, |config| {
        let upstream = config.upstreams.get_mut("git.example.com").unwrap();
        *upstream = upstream.clone().with_ignore_case(true);
    })
    .await;
    let list = daemon.get("/api/v1/repos", &[]).await;
    let list = list.text().await.unwrap();
    let archive = "/git/git.example.com/Org/Repo/snapshot.tar.zst";
    let archive = code(daemon.get(archive, &[]).await).await;

    assert!(!list.contains("Repo"), "{list}");
    // The upstream directory has no repository of this name in lower case.
    assert_eq!(archive, (404, "upstream_not_found".to_owned()));
    let mirror = daemon
        .root
        .path()
        .join("data/mirrors/git.example.com/Org/Repo.git");
    assert!(mirror.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_for_the_daemon_is_never_sent_upstream() {
    let root = tempfile::tempdir().unwrap();
    let (auth, token) = create_auth(root.path(), TEAM_ONLY);
    let upstream = HttpUpstream::start(root.path().join("upstream")).await;
    let url = upstream.url();
    let daemon = TestDaemon::start_in(root, |config| {
        config.auth = auth;
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
    });
    let daemon = daemon.await;
    grown_upstream(&daemon);
    let bearer = bearer(&token);
    let path = format!("/git/{WITH_GIT}/info/refs?service=git-receive-pack");

    let ours = daemon.get(&path, &[("authorization", &bearer)]).await;
    let both = [
        ("authorization", TOKEN),
        ("x-cachewfs-token", token.secret()),
    ];
    let both = daemon.get(&path, &both).await;

    assert_eq!((ours.status().as_u16(), both.status().as_u16()), (401, 200));
    assert_eq!(
        header(&ours, "www-authenticate"),
        "Basic realm=\"upstream\""
    );
    let seen = upstream.seen(&["receive-pack"]);
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert!(!format!("{request:?}").contains(token.secret()));
    }
    assert_eq!(seen[1].headers["authorization"], TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_tokens_are_reloaded_and_invalid_ones_are_ignored() {
    let (daemon, token) = start(TEAM_ONLY).await;
    let policy = daemon.root.path().join("policy.rego");
    let tokens = daemon.root.path().join("tokens");
    let bearer = bearer(&token);
    let list = async |headers: &[(&str, &str)]| daemon.get("/api/v1/repos", headers).await;
    let becomes = async |headers: &[(&str, &str)], status: u16| {
        answer_with(status, async || list(headers).await).await;
    };
    assert_eq!(list(&[]).await.status(), 401);

    write_file(&policy, "package cachewfs\nallow := true");
    becomes(&[], 200).await;
    write_file(&policy, "package cachewfs\nallow := ");
    // Tokens and policy are reloaded together. Once the new tokens count, the daemon has also seen
    // the invalid policy.
    write_file(&tokens, "# none\n");
    becomes(&[("authorization", &bearer)], 401).await;
    let answer = list(&[]).await;
    assert_eq!(answer.status(), 200, "the previous policy stays in force");
    write_file(&policy, TEAM_ONLY);
    becomes(&[], 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_policy_or_tokens_file_stops_the_start() {
    for (policy, tokens) in [
        ("package cachewfs\nallow if", ""),
        (TEAM_ONLY, "alice:secret"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (auth, _) = create_auth(root.path(), policy);
        write_file(&root.path().join("tokens"), tokens);
        let config = cachewfs_daemon::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.path().join("data").into(),
            auth,
            ..cachewfs_daemon::Config::default()
        };

        let error = cachewfsd::daemon().start(config).await.unwrap_err();

        let text = format!("{:#}", anyhow::Error::from(error));
        let names = text.contains("policy.rego") || text.contains("tokens");
        assert!(names && !text.contains("secret"), "{text}");
    }
}
