//! An upstream that speaks HTTP: `git http-backend` behind a small server. Tests make it hang,
//! fail, redirect or lie, and it records its requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

use crate::support::lfs_upstream;
use crate::support::liar::Lie;
use crate::support::test_daemon::*;

/// The credentials for pushes, as the `Authorization` header of a client.
pub(crate) const TOKEN: &str = "Bearer t0ken";

/// The behaviour of the server. Repositories whose name begins with `healthy` are always served
/// well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamMode {
    Good,
    /// Answers no request until the mode changes.
    Hangs,
    /// Answers no request of the mirror. Its URLs have no `.git`.
    HangsForMirror,
    /// Answers 500.
    Fails,
    /// Answers 403.
    Denies,
    /// Speaks only protocol version 0.
    OldProtocol,
    /// Lists refs for the mirror, but answers none of its fetches.
    HangsForMirrorFetch,
    /// Redirects all requests to another host.
    RedirectsAway,
    /// Redirects all requests to the same path at this port of this machine.
    RedirectsTo(u16),
    /// Redirects to URLs with `.git`, as GitLab does.
    WantsGitSuffix,
    /// Answers no LFS request.
    HangsForLfs,
    /// Sends the beginning of a pack, and breaks the connection when the mode changes.
    Breaks,
    /// Sends false responses.
    Lies(Lie),
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    /// Method, path and query.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
}

/// A server of all repositories in a directory. It stops with the runtime.
#[derive(Clone, Debug)]
pub(crate) struct HttpUpstream(Arc<UpstreamState>);

#[derive(Debug)]
struct UpstreamState {
    root: PathBuf,
    address: SocketAddr,
    mode: watch::Sender<UpstreamMode>,
    seen: Mutex<Vec<SeenRequest>>,
    required: Mutex<Option<String>>,
    /// The old and the new name of a repository, as parts of a URL path.
    renamed: Mutex<(String, String)>,
}

impl HttpUpstream {
    pub(crate) async fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(UpstreamState {
            root,
            address: listener.local_addr().unwrap(),
            mode: watch::Sender::new(UpstreamMode::Good),
            seen: Mutex::default(),
            required: Mutex::default(),
            renamed: Mutex::new(("/moved".to_owned(), "/repo".to_owned())),
        });
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self(shared)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.address.port()
    }

    /// Redirects requests for the repository `from` to `to`.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        *self.0.renamed.lock().unwrap() = (format!("/{from}"), format!("/{to}"));
    }

    pub(crate) fn set(&self, mode: UpstreamMode) {
        self.0.mode.send_replace(mode);
    }

    /// Answers 401 to requests without this `user:password` from now on.
    pub(crate) fn require(&self, pair: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        *self.0.required.lock().unwrap() = Some(format!("Basic {pair}"));
    }

    /// Returns the requests whose line contains all of `parts`.
    pub(crate) fn seen(&self, parts: &[&str]) -> Vec<SeenRequest> {
        let seen = self.0.seen.lock().unwrap();
        let has_all = |seen: &&SeenRequest| parts.iter().all(|part| seen.line.contains(part));
        seen.iter().filter(has_all).cloned().collect()
    }
}

/// Starts a daemon in front of an upstream that speaks HTTP.
pub(crate) async fn start_behind_http(
    change: impl FnOnce(&mut cachewfs_daemon::Config),
) -> (TestDaemon, HttpUpstream) {
    let root = tempfile::tempdir().unwrap();
    let upstream = HttpUpstream::start(root.path().join("upstream")).await;
    let url = upstream.url();
    let daemon = TestDaemon::start_in(root, |config| {
        config.upstreams = [("git.example.com".to_owned(), url.into())].into();
        change(config);
    });
    (daemon.await, upstream)
}

impl UpstreamState {
    /// Returns the new URL of a renamed repository, or `None` if `target` is of another one.
    fn new_location(&self, target: &str) -> Option<String> {
        let (from, to) = &*self.renamed.lock().unwrap();
        target.contains(from).then(|| target.replace(from, to))
    }
}

/// Returns the URL to which a mode redirects, or `None` if it does not redirect.
fn redirect_of(mode: UpstreamMode, target: &str) -> Option<String> {
    match mode {
        UpstreamMode::RedirectsAway => Some(format!("http://localhost:1{target}")),
        UpstreamMode::RedirectsTo(port) => Some(format!("http://127.0.0.1:{port}{target}")),
        UpstreamMode::WantsGitSuffix if !target.contains(".git/") => {
            Some(target.replace("/info/refs", ".git/info/refs"))
        }
        _ => None,
    }
}

async fn answer(State(shared): State<Arc<UpstreamState>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().unwrap().as_str().to_owned();
    shared.seen.lock().unwrap().push(SeenRequest {
        line: format!("{} {target}", parts.method),
        headers: parts.headers.clone(),
    });
    if let Some(required) = &*shared.required.lock().unwrap()
        && parts
            .headers
            .get("authorization")
            .is_none_or(|shown| shown != required)
    {
        let challenge = [("www-authenticate", "Basic realm=\"upstream\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let is_of_mirror = !target.contains(".git");
    if let Some(location) = shared.new_location(&target) {
        return (StatusCode::MOVED_PERMANENTLY, [("location", location)]).into_response();
    }
    if target.contains("/healthy") {
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        return backend(&shared, &parts, body).await;
    }
    let hangs = |mode: UpstreamMode| {
        mode == UpstreamMode::Hangs || mode == UpstreamMode::HangsForMirror && is_of_mirror
    };
    let mut mode = shared.mode.subscribe();
    let mode = *mode.wait_for(|mode| !hangs(*mode)).await.unwrap();
    if mode == UpstreamMode::Fails {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if mode == UpstreamMode::Denies {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(location) = redirect_of(mode, &target) {
        return (StatusCode::FOUND, [("location", location)]).into_response();
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let is_fetch = body.windows(13).any(|bytes| bytes == b"command=fetch");
    let is_held = |mode: &UpstreamMode| {
        *mode == UpstreamMode::HangsForMirrorFetch && is_of_mirror && is_fetch
    };
    let mut mode = shared.mode.subscribe();
    let mode = *mode.wait_for(|mode| !is_held(mode)).await.unwrap();
    if target.contains("/info/lfs/") {
        let mut mode = shared.mode.subscribe();
        let is_open = |mode: &UpstreamMode| *mode != UpstreamMode::HangsForLfs;
        mode.wait_for(is_open).await.unwrap();
        let url = format!("http://{}", shared.address);
        if let Some(answer) = lfs_upstream::answer(&shared.root, &url, &target, &body) {
            return answer;
        }
        return (StatusCode::ACCEPTED, parts.headers, body).into_response();
    }
    let authorization = parts.headers.get("authorization");
    if target.contains("receive-pack") && authorization.is_none_or(|value| value != TOKEN) {
        let challenge = [("www-authenticate", "Basic realm=\"upstream\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    if mode == UpstreamMode::OldProtocol {
        parts.headers.remove("git-protocol");
    }
    let response = backend(&shared, &parts, body.clone()).await;
    if let UpstreamMode::Lies(lie) = mode
        && target.ends_with("git-upload-pack")
    {
        let (head, answer) = response.into_parts();
        let answer = axum::body::to_bytes(answer, usize::MAX).await.unwrap();
        let repository = shared.root.join("org/repo.git");
        return Response::from_parts(head, Body::from(lie.falsify(&repository, &body, &answer)));
    }
    if mode == UpstreamMode::Breaks && is_fetch {
        return cut(&shared, response).await;
    }
    response
}

/// Sends the beginning of a response, and breaks the connection when the mode changes.
async fn cut(shared: &UpstreamState, response: Response) -> Response {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    let begun = futures_util::stream::iter([Ok(bytes.unwrap().slice(..20))]);
    let mut mode = shared.mode.subscribe();
    let cut = futures_util::stream::once(async move {
        mode.wait_for(|mode| *mode != UpstreamMode::Breaks)
            .await
            .unwrap();
        Err(std::io::Error::other("cut"))
    });
    Body::from_stream(begun.chain(cut)).into_response()
}

/// Runs `git http-backend` as a CGI program (RFC 3875).
async fn backend(shared: &UpstreamState, parts: &http::request::Parts, body: Bytes) -> Response {
    let header = |name: &str| {
        let value = parts.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    let mut process = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "3")
        .env("GIT_CONFIG_KEY_0", "http.receivepack")
        .env("GIT_CONFIG_VALUE_0", "true")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_1", "true")
        .env("GIT_CONFIG_KEY_2", "safe.directory")
        .env("GIT_CONFIG_VALUE_2", "*")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or(""))
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let feed = async {
        stdin.write_all(&body).await.ok();
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, process.wait_with_output());
    let output = output.unwrap().stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, content) = output.split_at(end.unwrap() + 4);
    let mut response = Response::new(Body::from(content.to_vec()));
    for line in String::from_utf8_lossy(head).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                *response.status_mut() = status.get(..3).unwrap().parse().unwrap();
            }
            Some((name, value)) => {
                let name: http::HeaderName = name.parse().unwrap();
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            None => {}
        }
    }
    response
}
