//! Credentials for upstream: the daemon sends them to upstream and nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cachewfs_daemon::{Config, UpstreamAuthConfig};
use tokio::net::TcpListener;

use crate::support::captured_log::CapturedLog;
use crate::support::http_upstream::*;
use crate::support::test_daemon::*;

const SECRET: &str = "s3cr3t-of-upstream";

fn with(auth: UpstreamAuthConfig) -> impl FnOnce(&mut Config) {
    |config| config.upstream_auth = [("git.example.com".to_owned(), auth)].into()
}

/// Starts a daemon with a token file, in front of an upstream that requires the token.
async fn start_with_token() -> (TestDaemon, HttpUpstream, PathBuf) {
    let directory = tempfile::tempdir().unwrap().keep();
    let file = directory.join("token");
    write_file(&file, format!("{SECRET}\n"));
    let auth = UpstreamAuthConfig {
        token_file: Some(file.clone()),
        ..UpstreamAuthConfig::default()
    };
    let (daemon, upstream) = start_behind_http(with(auth)).await;
    upstream.require(&format!("x-access-token:{SECRET}"));
    (daemon, upstream, file)
}

/// Returns the command lines of processes and the files below `directory` that contain `text`.
fn places_with(text: &str, directory: &Path) -> Vec<String> {
    let has = |path: &Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut places: Vec<_> = processes
        .map(|process| process.path().join("cmdline"))
        .filter(|path| has(path))
        .collect();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if has(&path) {
                places.push(path);
            }
        }
    }
    places
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_to_upstream_and_nowhere_else() {
    let log = CapturedLog::start();
    let (daemon, upstream, file) = start_with_token().await;
    let (_, head) = grown_upstream(&daemon);
    let data = daemon.root.path().join("data");
    upstream.set(UpstreamMode::HangsForMirrorFetch);

    // During the clone, the daemon passes the request on with its own token.
    let path = format!("/git/{WITH_GIT}/info/refs?service=git-upload-pack");
    let passed = daemon.get(&path, &[("git-protocol", "version=2")]).await;
    assert_eq!(passed.status(), 200);
    let is_cloning = || {
        let asked = upstream.seen(&["POST /org/repo/git-upload-pack"]);
        asked.len() >= 2
    };
    eventually(is_cloning).await;
    assert_eq!(daemon.status().await["state"], "cloning");
    assert_eq!(places_with(SECRET, &data), Vec::<String>::new());
    upstream.set(UpstreamMode::Good);
    let refreshed = daemon.refresh().await;
    assert_eq!(refreshed["snapshot"], head);
    assert_eq!(places_with(SECRET, &data), Vec::<String>::new());

    // The daemon uses a new token from the next command on. Upstream refuses this one.
    write_file(&file, "other");
    let refresh = format!("/git/{REPO}/refresh");
    let (status, error) = code(daemon.post(&refresh, "").await).await;
    assert_eq!((status, &*error), (403, "upstream_denied"));
    upstream.require("x-access-token:other");
    daemon.refresh().await;
    std::fs::remove_file(&file).unwrap();
    let failed = daemon.post(&refresh, "").await;
    let failed = failed.text().await.unwrap();

    let log = log.text();
    assert!(log.contains("Cloned"), "{log}");
    let encoded =
        base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{SECRET}"));
    for text in [log, failed, format!("{daemon:?}", daemon = daemon.running)] {
        assert!(!text.contains(SECRET) && !text.contains(&encoded), "{text}");
    }
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_a_url_are_in_no_command_line_and_no_file() {
    let (daemon, upstream) = start_behind_http(|config| {
        let base = config.upstreams.get_mut("git.example.com").unwrap();
        *base = base
            .url()
            .replace("://", &format!("://me:{SECRET}@"))
            .into();
    })
    .await;
    upstream.require(&format!("me:{SECRET}"));
    let (_, head) = grown_upstream(&daemon);
    let data = daemon.root.path().join("data");
    upstream.set(UpstreamMode::HangsForMirrorFetch);

    let repository = daemon.get(&stable(), &[("range", "bytes=-1")]).await;
    assert_eq!(repository.status(), 503);
    // One request lists refs, the second one is the fetch that hangs.
    eventually(|| upstream.seen(&["POST /org/repo/git-upload-pack"]).len() >= 2).await;
    assert_eq!(places_with(SECRET, &data), Vec::<String>::new());
    upstream.set(UpstreamMode::Good);

    assert_eq!(daemon.refresh().await["snapshot"], head);
    assert_eq!(places_with(SECRET, &data), Vec::<String>::new());
    let clone = daemon.extract("snapshot.tar.zst").await;
    let origin = git(&clone, ["config", "remote.origin.url"]);
    assert_eq!(origin, format!("{}/org/repo", upstream.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_helper_of_the_operator_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gitconfig");
    let helper = format!("!f() {{ echo username=me; echo password={SECRET}; }}; f");
    write_file(&file, format!("[credential]\n\thelper = \"{helper}\"\n"));
    let (daemon, upstream) = start_behind_http(|config| config.git.config_file = Some(file)).await;
    upstream.require(&format!("me:{SECRET}"));
    let (work, head) = grown_upstream(&daemon);

    assert_eq!(daemon.refresh().await["snapshot"], head);
    // With a helper, the daemon checks upstream by git, which asks the helper.
    let new = commit_and_push(&work, "three");
    let url = daemon.url(&format!("/git/{REPO}"));
    let ensure = format!("/git/{REPO}/ensure-refs");
    let wanted = format!("{{\"commits\":[\"{new}\"]}}");
    assert_eq!(daemon.post(&ensure, wanted).await.status(), 200);
    assert!(git(daemon.root.path(), ["ls-remote", &url]).contains(&new));
    let data = daemon.root.path().join("data");
    assert_eq!(places_with(SECRET, &data), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_can_come_from_the_environment_with_a_username() {
    // Cargo sets this variable for the test, and the daemon runs in the same process.
    let auth = UpstreamAuthConfig {
        token_env: Some("CARGO_PKG_NAME".to_owned()),
        username: "me".to_owned(),
        ..UpstreamAuthConfig::default()
    };
    let (daemon, upstream) = start_behind_http(with(auth)).await;
    upstream.require("me:cachewfsd");
    let (_, head) = grown_upstream(&daemon);

    assert_eq!(daemon.refresh().await["snapshot"], head);
    let path = format!("/git/{WITH_GIT}/info/refs?service=git-receive-pack");
    assert_eq!(
        daemon.get(&path, &[]).await.status(),
        401,
        "a push must not use the credentials of the daemon"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_credential_sections_stop_the_start() {
    let start = async |host: &str, auth: UpstreamAuthConfig| {
        let root = tempfile::tempdir().unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.path().join("data").into(),
            upstream_auth: [(host.to_owned(), auth)].into(),
            ..Config::default()
        };
        let error = cachewfsd::daemon().start(config).await.unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    };
    let auth = |token_env: Option<&str>, token_file: Option<&str>| UpstreamAuthConfig {
        token_env: token_env.map(str::to_owned),
        token_file: token_file.map(PathBuf::from),
        ..UpstreamAuthConfig::default()
    };

    let none = start("github.com", auth(None, None)).await;
    assert!(none.contains("exactly one"), "{none}");
    let both = start("github.com", auth(Some("HOME"), Some("/x"))).await;
    assert!(both.contains("exactly one"), "{both}");
    let unset = start("github.com", auth(Some("CACHEWFS_NOT_SET"), None)).await;
    assert!(unset.contains("CACHEWFS_NOT_SET"), "{unset}");
    let unknown = start("x.org", auth(Some("HOME"), None)).await;
    assert!(unknown.contains("x.org"), "{unknown}");
}

/// The part of GitHub's API that Apps need, with an upstream that accepts only the newest token.
#[derive(Debug)]
struct FakeGithub {
    directory: PathBuf,
    upstream: HttpUpstream,
    lifetime: Mutex<Duration>,
    issued: Mutex<usize>,
    is_failing: AtomicBool,
    asked: AtomicUsize,
}

impl FakeGithub {
    /// Returns whether `openssl` accepts the signature of the App, and the claims are valid.
    fn is_signed(&self, jwt: &str) -> bool {
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        write_file(&self.directory.join("signed"), signed);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        write_file(&self.directory.join("signature"), signature);
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1);
        let claims: serde_json::Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        let times = (
            claims["iat"].as_u64().unwrap(),
            claims["exp"].as_u64().unwrap(),
        );
        let verify = "dgst -sha256 -verify public.pem -signature signature signed";
        claims["iss"] == "1234" && times.1 - times.0 <= 600 && openssl(&self.directory, verify)
    }
}

fn openssl(directory: &Path, arguments: &str) -> bool {
    let arguments = arguments.split(' ');
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output();
    output.unwrap().status.success()
}

async fn api(State(api): State<Arc<FakeGithub>>, request: Request) -> Response {
    api.asked.fetch_add(1, Ordering::Relaxed);
    if api.is_failing.load(Ordering::Relaxed) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let authorization = request.headers()["authorization"].to_str().unwrap();
    if !api.is_signed(authorization.strip_prefix("Bearer ").unwrap()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/api/v3/users/org/installation") => "{\"id\":77}".into_response(),
        ("POST", "/api/v3/app/installations/77/access_tokens") => {
            let mut issued = api.issued.lock().unwrap();
            *issued += 1;
            let token = format!("ghs_{issued}");
            api.upstream.require(&format!("x-access-token:{token}"));
            let expires = SystemTime::now() + *api.lifetime.lock().unwrap();
            let expires_at = humantime::format_rfc3339_seconds(expires).to_string();
            let answer = serde_json::json!({ "token": token, "expires_at": expires_at });
            (StatusCode::CREATED, answer.to_string()).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Starts a daemon that authenticates as a GitHub App.
async fn start_with_app() -> (TestDaemon, Arc<FakeGithub>) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    assert!(openssl(&directory, "genrsa -traditional -out app.pem 2048"));
    assert!(openssl(
        &directory,
        "rsa -in app.pem -pubout -out public.pem"
    ));
    let upstream = HttpUpstream::start(root.path().join("upstream")).await;
    upstream.require("nobody:");
    let shared = Arc::new(FakeGithub {
        directory: directory.clone(),
        upstream: upstream.clone(),
        lifetime: Mutex::new(Duration::from_mins(1)),
        issued: Mutex::new(0),
        is_failing: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}/api/v3", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .fallback(api)
        .with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let auth = UpstreamAuthConfig {
        app_id: Some("1234".to_owned()),
        private_key_file: Some(directory.join("app.pem")),
        api_url,
        ..UpstreamAuthConfig::default()
    };
    let url = upstream.url();
    let daemon = TestDaemon::start_in(root, |config| {
        with(auth)(config);
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
    });
    (daemon.await, shared)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_github_api_is_asked_with_backoff() {
    let (daemon, api) = start_with_app().await;
    let (_, head) = grown_upstream(&daemon);
    api.is_failing.store(true, Ordering::Relaxed);
    let refresh = format!("/git/{REPO}/refresh");

    let began = Instant::now();
    for _ in 0..20 {
        let failed = daemon.post(&refresh, "").await;
        let text = failed.text().await.unwrap();
        assert!(text.contains("GitHub"), "{text}");
    }

    // With backoff, requests come at once and after 1, 3, 7, … seconds.
    let asked = api.asked.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    assert!(
        asked as f64 <= 1.0 + (1.0 + seconds).log2().ceil(),
        "{asked} in {seconds} s"
    );
    api.is_failing.store(false, Ordering::Relaxed);
    answer_with(200, async || daemon.post(&refresh, "").await).await;
    assert_eq!(daemon.refresh().await["snapshot"], head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_app_gets_tokens_that_are_shared_until_they_expire() {
    let (daemon, shared) = start_with_app().await;
    let (work, _) = grown_upstream(&daemon);
    let issued = || *shared.issued.lock().unwrap();

    // A token that expires soon is used for one command only.
    daemon.refresh().await;
    let first = issued();
    assert!(first >= 2, "{first} tokens were issued");
    *shared.lifetime.lock().unwrap() = Duration::from_hours(1);
    daemon.refresh().await;
    assert_eq!(issued(), first + 1);
    let head = commit_and_push(&work, "three");
    assert_eq!(daemon.refresh().await["snapshot"], head);
    assert_eq!(issued(), first + 1, "several commands share one token");

    // If the App is not installed for an owner, the daemon can read only public repositories.
    let other = daemon
        .post("/git/git.example.com/other/repo/refresh", "")
        .await;
    assert_eq!(code(other).await, (404, "upstream_not_found".to_owned()));
    assert_eq!(issued(), first + 1);
}
