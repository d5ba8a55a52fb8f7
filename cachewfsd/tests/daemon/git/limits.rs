//! Requests of git clients that the daemon refuses, and the limits that it enforces.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use reqwest::{Body, Client, Method, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http_upstream::*;
use crate::support::pkt;
use crate::support::test_daemon::*;

/// More bytes than all sockets and queues between the daemon and a client hold.
const SLOW_LEN: usize = 20 << 20;

async fn mirrored(
    change: impl FnOnce(&mut cachewfs_daemon::Config),
) -> (TestDaemon, PathBuf, String) {
    let daemon = TestDaemon::start_with(|config| {
        config.ref_check_interval = Duration::from_hours(1);
        change(config);
    })
    .await;
    let work = daemon.create_upstream();
    write_file(&work.join("file"), "content");
    let head = commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, work, head)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post(daemon: &TestDaemon, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let url = daemon.url(&format!("/git/{REPO}/git-upload-pack"));
    let mut request = Client::new().post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

fn answer(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_compressed_and_come_in_chunks() {
    let (daemon, _, head) = mirrored(|_| {}).await;
    let plain = post(&daemon, &pkt::HEADERS, pkt::ls_refs()).await;
    let plain = plain.text().await.unwrap();

    let compressed = [&pkt::HEADERS[..], &[("content-encoding", "gzip")]].concat();
    let compressed = post(&daemon, &compressed, gzip(&pkt::ls_refs())).await;
    let pieces: Vec<_> = pkt::ls_refs()
        .into_iter()
        .map(|byte| Ok::<_, std::io::Error>(vec![byte]))
        .collect();
    let chunks = Body::wrap_stream(futures_util::stream::iter(pieces));
    let chunked = post(&daemon, &pkt::HEADERS, chunks).await;

    assert!(plain.contains(&head));
    assert_eq!(compressed.text().await.unwrap(), plain);
    assert_eq!(chunked.text().await.unwrap(), plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_is_refused_in_every_encoding() {
    let (daemon, _, _) = mirrored(|config| config.git_http.max_body_bytes = 100_000).await;
    let long = vec![b'0'; 5_000_000];
    let compressed = [&pkt::HEADERS[..], &[("content-encoding", "gzip")]].concat();
    let small_bomb = post(&daemon, &compressed, gzip(&long[..90_000])).await;

    let plain = post(&daemon, &pkt::HEADERS, long.clone()).await;
    let bomb = post(&daemon, &compressed, gzip(&long)).await;
    let pieces: Vec<_> = (0..500)
        .map(|_| Ok::<_, std::io::Error>(vec![b'0'; 10_000]))
        .collect();
    let chunks = Body::wrap_stream(futures_util::stream::iter(pieces));
    let chunked = post(&daemon, &pkt::HEADERS, chunks).await;

    assert_eq!(code(small_bomb).await, answer(413, "body_inflates"));
    assert_eq!(code(plain).await, answer(413, "body_too_large"));
    assert_eq!(code(bomb).await, answer(413, "body_too_large"));
    assert_eq!(code(chunked).await, answer(413, "body_too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_unsupported_bodies_are_refused() {
    let (daemon, _, _) = mirrored(|_| {}).await;
    let with = |name: &'static str, value: &'static str| {
        let [protocol, kind] = pkt::HEADERS;
        match name {
            "content-type" => vec![protocol, (name, value)],
            _ => vec![protocol, kind, (name, value)],
        }
    };
    let status = async |headers: Vec<(&str, &str)>, body: Vec<u8>| {
        code(post(&daemon, &headers, body).await).await
    };

    let not_gzip = status(with("content-encoding", "gzip"), b"plain".to_vec()).await;
    let mut cut = gzip(&pkt::ls_refs());
    cut.truncate(cut.len() - 5);
    let cut = status(with("content-encoding", "gzip"), cut).await;
    let brotli = status(with("content-encoding", "br"), pkt::ls_refs()).await;
    let twice = [
        &with("content-encoding", "gzip")[..],
        &[("content-encoding", "gzip")],
    ];
    let twice = status(twice.concat(), gzip(&gzip(&pkt::ls_refs()))).await;
    let kind = status(with("content-type", "text/plain"), pkt::ls_refs()).await;

    assert_eq!(not_gzip, answer(400, "bad_body"));
    assert_eq!(cut, answer(400, "bad_body"));
    assert_eq!(brotli, answer(415, "unsupported_body"));
    assert_eq!(twice, answer(415, "unsupported_body"));
    assert_eq!(kind, answer(415, "unsupported_body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_services_names_and_versions_are_refused() {
    let (daemon, _, _) = mirrored(|_| {}).await;
    let get = async |path: String| raw_get(&daemon, &path).await;
    let refs = "info/refs?service=git-upload-pack";

    for query in [
        "",
        "?service=git-upload-archive",
        "?service=--upload-pack=x",
        "?service=git-upload-pack&service=git-receive-pack",
        "?service=git-upload-pack%00",
    ] {
        let refused = get(format!("/git/{REPO}/info/refs{query}")).await;
        assert_eq!(refused, answer(400, "bad_service"), "{query}");
    }
    for name in [
        "git.example.com/-upload-pack=x",
        "git.example.com/--upload-pack=x/y",
        "git.example.com/%2e%2e/x",
        "git.example.com/a%2Fb",
        "git.example.com/a/%2e%2e/b",
        "git.example.com",
    ] {
        let refused = get(format!("/git/{name}/{refs}")).await;
        assert_eq!(refused, answer(400, "bad_repo_name"), "{name}");
    }
    for path in ["info/lfs/%2e%2e/x", "x/%2e%2e/%2e%2e/y", "x//y"] {
        let refused = get(format!("/git/{REPO}.git/{path}")).await;
        assert_eq!(refused, answer(404, "no_such_path"), "{path}");
    }
    let elsewhere = get(format!("/git/other.example.com/x/{refs}")).await;
    assert_eq!(elsewhere, answer(404, "unknown_host"));
    for version in ["version=2;x", "version=2 ", "$(touch x)", "version=2:"] {
        let path = format!("/git/{REPO}/{refs}");
        let refused = daemon.get(&path, &[("git-protocol", version)]).await;
        if version.trim() == "version=2" {
            assert_eq!(refused.status(), 200);
        } else {
            assert_eq!(
                code(refused).await,
                answer(400, "bad_git_protocol"),
                "{version}"
            );
        }
    }
    let path = format!("/git/{REPO}/{refs}");
    let posted = daemon.request(Method::POST, &path, &[]).await;
    assert_eq!(
        (posted.status().as_u16(), &posted.headers()["allow"]),
        (405, &"GET".parse().unwrap())
    );
    let got = daemon
        .get(&format!("/git/{REPO}/git-upload-pack"), &[])
        .await;
    assert_eq!(got.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_times_out() {
    let limit = Duration::from_millis(100);
    let (daemon, _, _) = mirrored(|config| config.git_http.body_timeout = limit).await;
    let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(b"00".to_vec())]);

    let stalled = Body::wrap_stream(begun.chain(futures_util::stream::pending()));
    let refused = post(&daemon, &pkt::HEADERS, stalled).await;

    assert_eq!(code(refused).await, answer(408, "body_too_slow"));
}

/// Sends the head of a request and the first byte of its body, but never the rest.
async fn begin_body(daemon: &TestDaemon, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.running.address).await.unwrap();
    let [(protocol, version), (kind, upload_pack)] = pkt::HEADERS;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\n{protocol}: {version}\r\n{kind}: {upload_pack}\r\n\
         content-length: 1000\r\n\r\n0"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_bodies_do_not_block_other_clients() {
    let (daemon, _, head) = mirrored(|config| config.git_http.max_requests = 8).await;
    let mut stalled = Vec::new();
    for path in ["git-upload-pack", "ensure-refs"] {
        for _ in 0..30 {
            stalled.push(begin_body(&daemon, &format!("/git/{REPO}/{path}")).await);
        }
    }

    let listed = post(&daemon, &pkt::HEADERS, pkt::ls_refs()).await;
    let ensured = daemon
        .post(
            &format!("/git/{REPO}/ensure-refs"),
            format!("{{\"commits\":[\"{head}\"]}}"),
        )
        .await;

    assert!(listed.text().await.unwrap().contains(&head));
    assert_eq!(ensured.status(), 200);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_permits_and_disk_to_others() {
    let (daemon, upstream) = start_behind_http(|config| {
        config.git_http.max_requests = 8;
        config.git_http.max_body_bytes = 1 << 20;
    })
    .await;
    daemon.create_upstream();
    upstream.set(UpstreamMode::Hangs);
    let from = |address: [u8; 4]| {
        let client = Client::builder().local_address(std::net::IpAddr::from(address));
        client.build().unwrap()
    };
    let (crowd, other) = (from([127, 0, 0, 1]), from([127, 0, 0, 2]));
    let refs = daemon.url(&format!("/git/{REPO}/info/refs?service=git-upload-pack"));
    // One address gets three quarters of the permits: six of eight.
    let waiting: Vec<_> = (0..6)
        .map(|_| tokio::spawn(crowd.get(&refs).send()))
        .collect();
    eventually(|| !upstream.seen(&["info/refs"]).is_empty()).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let refused = loop {
        let one_more = crowd.get(&refs).timeout(Duration::from_millis(100));
        match one_more.send().await {
            Ok(refused) => break refused,
            Err(_) => assert!(
                tokio::time::Instant::now() < deadline,
                "one address got all permits"
            ),
        }
    };
    assert_eq!(code(refused).await, answer(503, "busy"));
    let served = tokio::spawn(other.get(&refs).send());
    upstream.set(UpstreamMode::Good);
    assert_eq!(served.await.unwrap().unwrap().status(), 200);
    let mut answers = Vec::new();
    for request in waiting {
        answers.push(request.await.unwrap().unwrap().status().as_u16());
    }
    // One of the retries may have held the sixth permit when the last of these requests came.
    answers.sort_unstable();
    assert!(
        answers[..5] == [200; 5] && [200, 503].contains(&answers[5]),
        "{answers:?}"
    );

    // The disk budget is sixteen of the longest bodies, and twelve of one address.
    upstream.set(UpstreamMode::Hangs);
    let upload = daemon.url(&format!("/git/{REPO}/git-upload-pack"));
    let send = |client: &Client, body: Body| {
        let request = client.post(&upload).body(body);
        let request = pkt::HEADERS.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        tokio::spawn(request.send())
    };
    let stalled = || {
        let all = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![b'0'; 1 << 20])]);
        Body::wrap_stream(all.chain(futures_util::stream::pending()))
    };
    let full: Vec<_> = (0..14).map(|_| send(&crowd, stalled())).collect();
    let finished = || full.iter().filter(|request| request.is_finished());
    eventually(|| finished().count() >= 2).await;
    let seen = || upstream.seen(&["git-upload-pack"]).len();
    let before = seen();
    let short = send(&crowd, vec![b'1'; 1000].into());
    eventually(|| seen() > before).await;
    let long = send(&other, vec![b'1'; 1 << 20].into());
    eventually(|| seen() > before + 1).await;
    for request in full {
        if request.is_finished() {
            let refused = request.await.unwrap().unwrap();
            assert_eq!(code(refused).await, answer(503, "busy"));
        }
    }
    drop((short, long));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_get_503() {
    let (daemon, upstream) = start_behind_http(|config| config.git_http.max_requests = 1).await;
    daemon.create_upstream();
    upstream.set(UpstreamMode::Hangs);
    let path = format!("/git/{REPO}/info/refs?service=git-upload-pack");
    let url = daemon.url(&path);
    let first = tokio::spawn(async move { reqwest::get(url).await.unwrap().status() });
    eventually(|| upstream.seen(&["info/refs"]).len() >= 2).await;

    let refused = daemon.get(&path, &[]).await;

    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(code(refused).await, answer(503, "busy"));
    upstream.set(UpstreamMode::Good);
    assert_eq!(first.await.unwrap(), 200);
    // The permit is free again as soon as the first response has been sent.
    answer_with(200, async || daemon.get(&path, &[]).await).await;
}

/// Requests a path over a plain socket, because an HTTP client would normalise it. Returns status
/// and code of the response.
async fn raw_get(daemon: &TestDaemon, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(daemon.running.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

/// Starts a daemon with a mirror whose pack exceeds all buffers between it and a client.
async fn start_with_large_mirror() -> (TestDaemon, String) {
    let (daemon, work, _) = mirrored(|_| {}).await;
    write_file(&work.join("large"), noise(7, SLOW_LEN));
    let head = commit_and_push(&work, "large");
    daemon.refresh().await;
    (daemon, head)
}

/// Returns how many `upload-pack` processes serve the mirror.
fn serving_processes(daemon: &TestDaemon) -> usize {
    let mirror = daemon
        .root
        .path()
        .join("data/mirrors")
        .join(format!("{REPO}.git"));
    let mirror = mirror.to_str().unwrap();
    let serves = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("upload-pack") && line.contains(mirror)
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes.filter(|process| serves(&process.path())).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_ends_only_its_own_processes() {
    let (daemon, head) = start_with_large_mirror().await;
    let leaving = post(&daemon, &pkt::HEADERS, pkt::fetch(&head)).await;
    eventually(|| serving_processes(&daemon) == 1).await;
    let staying = post(&daemon, &pkt::HEADERS, pkt::fetch(&head)).await;
    eventually(|| serving_processes(&daemon) == 2).await;

    drop(leaving);

    eventually(|| serving_processes(&daemon) == 1).await;
    let all = staying.bytes().await.unwrap();
    assert!(all.len() > SLOW_LEN && all.ends_with(b"0000"));
    eventually(|| serving_processes(&daemon) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_disconnected() {
    let daemon = TestDaemon::start_with(|config| {
        config.git_http.idle_timeout = Duration::from_millis(200);
    })
    .await;
    let work = daemon.create_upstream();
    write_file(&work.join("large"), noise(7, SLOW_LEN));
    let head = commit_and_push(&work, "large");
    daemon.refresh().await;

    let stalled = post(&daemon, &pkt::HEADERS, pkt::fetch(&head)).await;

    eventually(|| serving_processes(&daemon) == 0).await;
    assert!(
        stalled.bytes().await.is_err(),
        "the response ended as if it were complete"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repack_under_a_running_clone_does_not_break_it() {
    let (daemon, head) = start_with_large_mirror().await;
    let mirror = daemon
        .root
        .path()
        .join("data/mirrors")
        .join(format!("{REPO}.git"));
    let packs = || {
        std::fs::read_dir(mirror.join("objects/pack"))
            .unwrap()
            .filter_map(Result::ok)
    };
    let names = || packs().map(|pack| pack.file_name()).collect::<Vec<_>>();
    let before = names();
    let running = post(&daemon, &pkt::HEADERS, pkt::fetch(&head)).await;

    // Repacks all objects, and removes the packs that the running clone reads.
    git(
        &mirror,
        ["-c", "safe.directory=*", "repack", "-a", "-d", "-f", "-q"],
    );

    assert!(names().iter().all(|name| !before.contains(name)));
    let all = running.bytes().await.unwrap();
    let to = tempfile::tempdir_in(daemon.root.path()).unwrap();
    git(to.path(), ["init", "-q"]);
    let pack = unpacked(&all);
    git_with_input(to.path(), &["index-pack", "--stdin", "--strict"], &pack);
}

/// Extracts the pack from the response to a fetch of protocol version 2.
fn unpacked(mut answer: &[u8]) -> Vec<u8> {
    let mut pack = Vec::new();
    while let Some((length, rest)) = answer.split_at_checked(4) {
        let length = usize::from_str_radix(std::str::from_utf8(length).unwrap(), 16).unwrap();
        let (payload, rest) = rest.split_at(length.saturating_sub(4));
        if let Some(data) = payload.strip_prefix(&[1]) {
            pack.extend_from_slice(data);
        }
        answer = rest;
    }
    pack
}
