//! Cache misses: requests for a snapshot that is not published yet share one build, which is
//! streamed to all clients.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::gate::Gate;
use crate::support::test_daemon::*;

/// A zstd skippable frame, which the daemon sends to keep a stream alive while there is no data.
const KEEP_ALIVE: &[u8] = b"\x50\x2A\x4D\x18\0\0\0\0";

/// Extracts an archive in the way of the current client.
fn extract(daemon: &TestDaemon, bytes: &[u8]) -> std::path::PathBuf {
    let to = tempfile::tempdir_in(daemon.root.path()).unwrap().keep();
    let mut tar = Command::new("bash")
        .args([
            "-c",
            "set -o pipefail; zstd -dc | tar -xpf - -C \"$1\"",
            "-",
        ])
        .arg(&to)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    stdin.write_all(bytes).unwrap();
    drop(stdin);
    assert!(tar.wait().unwrap().success());
    to
}

/// Returns a stream without its keep-alive frames.
fn without_keep_alive(mut streamed: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(streamed.len());
    while let Some((first, after)) = streamed.split_first() {
        streamed = streamed.strip_prefix(KEEP_ALIVE).unwrap_or_else(|| {
            rest.push(*first);
            after
        });
    }
    rest
}

fn assert_streams(response: &Response) {
    assert_eq!(response.status(), 200);
    assert_eq!(header(response, "transfer-encoding"), "chunked");
    assert_eq!(header(response, "content-type"), "application/zstd");
    for absent in ["accept-ranges", "content-length", "content-range", "etag"] {
        assert!(response.headers().get(absent).is_none(), "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_streamed_while_the_mirror_is_cloned() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(3, 3_000_000));
    let commit = commit_and_push(&work, "one");
    gate.close();
    let mirror = format!("/git/{REPO}/mirror.tar.zst");
    let first_chunk = [("range", "bytes=0-16777215")];

    let stable = stable();
    let (mut clone, mut bare) =
        tokio::join!(daemon.get(&stable, &first_chunk), daemon.get(&mirror, &[]),);
    assert_streams(&clone);
    assert_streams(&bare);
    let alive = clone.chunk().await.unwrap().unwrap();
    let still_alive = clone.chunk().await.unwrap().unwrap();
    gate.open();

    let mut streamed = [alive, still_alive].concat();
    assert_eq!(streamed, KEEP_ALIVE.repeat(2));
    streamed.extend(clone.bytes().await.unwrap());
    let clone = extract(&daemon, &streamed);
    assert_good_clone(&clone);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), commit);
    assert_eq!(bare.chunk().await.unwrap().unwrap(), KEEP_ALIVE);
    let bare = extract(&daemon, &bare.bytes().await.unwrap());
    git(&bare, ["fsck", "--strict"]);
    // Except for the keep-alive frames, the stream equals the stored archive.
    let stored = daemon.get(&stable, &[]).await.bytes().await.unwrap();
    assert!(without_keep_alive(&streamed) == stored);
    assert_eq!(gate.packs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_streamed_as_soon_as_they_are_built() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join(".gitattributes"), "held filter=gate\n");
    write_file(&work.join("held"), "held\n");
    write_file(&work.join("noise"), noise(6, 2_000_000));
    commit_and_push(&work, "one");
    gate.hold_checkout();

    // The tip pack precedes the index and the work tree, which are not built yet.
    let mut response = daemon.get(&stable(), &[]).await;
    assert_streams(&response);
    let mut streamed = Vec::new();
    while streamed.len() < 2_000_000 {
        streamed.extend(response.chunk().await.unwrap().unwrap());
    }
    let head = daemon.request(Method::HEAD, &stable(), &[]).await;
    gate.release_checkout();
    streamed.extend(response.bytes().await.unwrap());

    assert_eq!(head.status(), 404);
    let stored = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    assert!(without_keep_alive(&streamed) == stored);
    assert_good_clone(&extract(&daemon, &streamed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_the_rest_of_its_own_snapshot() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join(".gitattributes"), "held filter=gate\n");
    write_file(&work.join("held"), "held\n");
    // More than all buffers between the daemon and the client hold.
    write_file(&work.join("noise"), noise(8, 24_000_000));
    let first = commit_and_push(&work, "one");
    gate.hold_checkout();

    let mut response = daemon.get(&stable(), &[]).await;
    assert_streams(&response);
    let mut streamed = Vec::new();
    while streamed.len() < 100_000 {
        streamed.extend(response.chunk().await.unwrap().unwrap());
    }
    gate.release_checkout();
    daemon.refresh().await;
    let second = commit_and_push(&work, "two");
    assert_eq!(daemon.refresh().await["snapshot"], second);
    streamed.extend(response.bytes().await.unwrap());

    let url = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    let stored = daemon.get(&url, &[]).await.bytes().await.unwrap();
    assert!(without_keep_alive(&streamed) == stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_in_the_middle_breaks_the_connection() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join(".gitattributes"), "held filter=gate\n");
    write_file(&work.join("held"), "held\n");
    commit_and_push(&work, "one");
    gate.hold_checkout();

    let response = daemon.get(&stable(), &[]).await;
    assert_streams(&response);
    write_file(&daemon.store().join("deletions"), "damaged");
    gate.release_checkout();

    assert!(response.bytes().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_for_a_small_repository_supports_ranges() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");

    let first = daemon.get(&stable(), &[("range", "bytes=0-99")]).await;

    assert_eq!(first.status(), 206);
    assert_eq!(first.bytes().await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_snapshot_does_not_wait_for_publish_delay() {
    let daemon =
        TestDaemon::start_with(|config| config.publish_delay = Duration::from_hours(1)).await;
    let work = daemon.create_upstream();
    let commit = commit_and_push(&work, "one");

    let streamed = daemon.get(&stable(), &[]).await.bytes().await.unwrap();

    let clone = extract(&daemon, &streamed);
    assert_eq!(git(&clone, ["rev-parse", "HEAD"]), commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_stream_cannot_answer_get_503() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    gate.close();

    for headers in [
        &[("range", "bytes=-65536")][..],
        &[("range", "bytes=100-")],
        &[("x-cachew-snapshot-pin", "probe")],
    ] {
        let response = daemon.get(&stable(), headers).await;
        assert_eq!(header(&response, "retry-after"), "1");
        let expected = (503, "snapshot_not_ready".to_owned());
        assert_eq!(code(response).await, expected, "{headers:?}");
    }
    // An HTTP/1.0 client has no chunked encoding, so it could not tell a broken stream from a
    // complete one.
    let address = daemon.running.address;
    let mut old = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET {} HTTP/1.0\r\nHost: {address}\r\n\r\n", stable());
    old.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
    let matching = daemon.get(&stable(), &[("if-match", "*")]).await;
    assert_eq!(matching.status(), 412);
    let head = daemon.request(Method::HEAD, &stable(), &[]).await;
    assert_eq!(head.status(), 404);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_typo_gets_404() {
    let daemon = TestDaemon::start().await;

    let path = "/git/git.example.com/org/typo/snapshot.tar.zst";
    let typo = daemon.get(path, &[]).await;

    assert_eq!(code(typo).await, (404, "upstream_not_found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_publish_is_retried_on_the_next_request() {
    let daemon = TestDaemon::start_with(|config| config.ref_check_interval = Duration::ZERO).await;
    let work = daemon.create_upstream();

    let empty = daemon.get(&stable(), &[]).await;
    assert_eq!(code(empty).await, (404, "repository_empty".to_owned()));
    commit_and_push(&work, "one");

    answer_with(200, async || daemon.get(&stable(), &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_clone_is_retried_on_the_next_request_after_its_backoff() {
    for pause in [Duration::from_millis(1), Duration::from_hours(1)] {
        let (daemon, gate) = Gate::start(|config| {
            config.mirrors.retry_first = pause;
            config.mirrors.retry_max = pause;
        })
        .await;
        let work = daemon.create_upstream();
        commit_and_push(&work, "one");
        gate.close();
        gate.fail();

        let failed = daemon.get(&stable(), &[]).await;
        assert_eq!(code(failed).await, (502, "upstream_failed".to_owned()));
        gate.repair();
        let next = daemon.get(&stable(), &[]).await;

        // The daemon retries only after the backoff.
        let expected = if pause.as_secs() == 0 { 200 } else { 502 };
        assert_eq!(next.status(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_breaks_the_connection() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");
    gate.close();

    let response = daemon.get(&stable(), &[]).await;
    assert_streams(&response);
    gate.fail();

    let error = response.bytes().await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_start_one_clone() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(4, 100_000));
    commit_and_push(&work, "one");
    gate.close();
    let path = stable();

    let ask = (0..500).map(|_| daemon.get(&path, &[]));
    let responses = join_all(ask).await;
    responses.iter().for_each(assert_streams);
    gate.open();
    let bodies = join_all(responses.into_iter().map(Response::bytes)).await;

    let stored = daemon.get(&path, &[]).await.bytes().await.unwrap();
    for body in bodies {
        assert!(without_keep_alive(&body.unwrap()) == stored);
    }
    assert_eq!(gate.packs(), 1);
    assert_eq!(gate.runs("clone"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_goes_on_if_its_clients_disconnect() {
    let (daemon, gate) = Gate::start(|_| {}).await;
    let work = daemon.create_upstream();
    let commit = commit_and_push(&work, "one");
    gate.close();
    let path = stable();

    let (first, second) = tokio::join!(daemon.get(&path, &[]), daemon.get(&path, &[]));
    drop(first);
    // Even when the last client leaves, the build goes on.
    drop(second);
    gate.open();

    let head = async || daemon.request(Method::HEAD, &path, &[]).await;
    let head = answer_with(200, head).await;
    assert_eq!(header(&head, "x-cachew-snapshot-commit"), commit);
    assert_eq!(gate.packs(), 1);
    let described = daemon.get(&format!("/api/v1/repos/{REPO}"), &[]).await;
    let described: Value = described.json().await.unwrap();
    assert_eq!(described["failure"], Value::Null);
}
