//! Pins: a client gets all its ranges from one revision, from any replica, even if a newer
//! revision becomes current.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cachewfs_daemon::Config;
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;

use crate::support::test_daemon::*;

const PIN: &str = "x-cachew-snapshot-pin";

async fn published() -> (TestDaemon, std::path::PathBuf) {
    published_with(|_| {}).await
}

async fn published_with(change: impl FnOnce(&mut Config)) -> (TestDaemon, std::path::PathBuf) {
    let daemon = TestDaemon::start_with(change).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 500_000));
    commit_and_push(&work, "one");
    daemon.refresh().await;
    (daemon, work)
}

async fn publish_more(daemon: &TestDaemon, work: &Path) {
    write_file(&work.join("noise"), noise(2, 700_000));
    commit_and_push(work, "more");
    daemon.refresh().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_gives_a_token_and_the_size_but_no_bytes() {
    let (daemon, _) = published().await;
    let whole = daemon.get(&stable(), &[]).await;

    for method in [Method::GET, Method::HEAD] {
        let probe = daemon.request(method, &stable(), &[(PIN, "probe")]).await;

        assert_eq!(probe.status(), 200);
        assert_eq!(header(&probe, "etag"), header(&whole, "etag"));
        assert_eq!(
            header(&probe, PIN),
            format!("etag:{}", header(&whole, "etag"))
        );
        let size = whole.content_length().unwrap();
        assert_eq!(header(&probe, "content-range"), format!("bytes */{size}"));
        assert_eq!(probe.bytes().await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_its_revision_even_if_a_newer_one_is_current() {
    let (daemon, work) = published().await;
    let first = daemon.get(&stable(), &[]).await;
    let (token, etag) = (header(&first, PIN), header(&first, "etag"));
    let first = first.bytes().await.unwrap();

    publish_more(&daemon, &work).await;

    let len = first.len();
    for start in (0..len).step_by(100_000) {
        let end = len.min(start + 100_000);
        let range = format!("bytes={start}-{}", end - 1);
        let part = daemon
            .get(&stable(), &[(PIN, &token), ("range", &range)])
            .await;
        assert_eq!(part.status(), 206);
        assert_eq!(header(&part, "etag"), etag);
        assert_eq!(header(&part, PIN), token);
        assert_eq!(part.bytes().await.unwrap(), first[start..end]);
    }
    let unpinned = daemon.get(&stable(), &[("range", "bytes=0-9")]).await;
    assert_ne!(header(&unpinned, "etag"), etag);
    // Preconditions are evaluated against the pinned revision.
    let both = [(PIN, &*token), ("if-match", &*header(&unpinned, "etag"))];
    assert_eq!(daemon.get(&stable(), &both).await.status(), 412);
    let mirror = format!("/git/{REPO}/mirror.tar.zst");
    let of_the_other_kind = daemon.get(&mirror, &[(PIN, &token)]).await;
    assert_eq!(of_the_other_kind.status(), 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_deleted_or_unknown_revision_gets_412() {
    let (daemon, work) = published_with(|config| {
        config.keep_snapshots = 1;
        config.delete_grace = std::time::Duration::ZERO;
        config.keep_age = std::time::Duration::ZERO;
    })
    .await;
    let probe = daemon.get(&stable(), &[(PIN, "probe")]).await;
    let gone = header(&probe, PIN);
    publish_more(&daemon, &work).await;

    let never = format!("etag:\"{}\"", "0".repeat(64));
    for token in [&*gone, &*never, "etag:", "nonsense"] {
        let refused = daemon
            .get(&stable(), &[(PIN, token), ("range", "bytes=0-9")])
            .await;

        let expected = (412, "precondition_failed".to_owned());
        assert_eq!(code(refused).await, expected, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_an_unpublished_repository_is_answered_at_once() {
    let daemon = TestDaemon::start().await;
    let work = daemon.create_upstream();
    commit_and_push(&work, "one");

    let head = daemon
        .request(Method::HEAD, &stable(), &[(PIN, "probe")])
        .await;
    let probe = daemon.get(&stable(), &[(PIN, "probe")]).await;

    assert_eq!(head.status(), 404);
    assert_eq!(code(probe).await, (503, "snapshot_not_ready".to_owned()));
}

/// Downloads the archive in ranges, four at a time, each pinned by `pin`. Returns the immutable URL
/// of the first response and the bytes, or the status that ended the download.
async fn download(daemon: &TestDaemon, pin: Pin) -> Result<(String, Vec<u8>), u16> {
    let first = daemon.get(&stable(), &[("range", "bytes=0-49999")]).await;
    assert_eq!(first.status(), 206);
    let location = header(&first, "content-location");
    let (name, value) = match pin {
        Pin::IfMatch => ("if-match", header(&first, "etag")),
        Pin::Token => (PIN, header(&first, PIN)),
    };
    let content_range = header(&first, "content-range");
    let len: usize = content_range.rsplit('/').next().unwrap().parse().unwrap();
    let mut bytes = first.bytes().await.unwrap().to_vec();
    let mut parts = stream::iter((50_000..len).step_by(50_000))
        .map(|start| {
            let range = format!("bytes={start}-{}", start + 49_999);
            let value = value.clone();
            async move {
                let headers = [("range", &*range), (name, &*value)];
                let part = daemon.get(&stable(), &headers).await;
                match part.status().as_u16() {
                    206 => Ok(part.bytes().await.unwrap()),
                    status => Err(status),
                }
            }
        })
        .buffered(4);
    while let Some(part) = parts.next().await {
        bytes.extend(part?);
    }
    Ok((location, bytes))
}

/// How a client pins its ranges to one revision.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pin {
    IfMatch,
    Token,
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_in_ranges_never_mix_revisions_while_snapshots_are_published() {
    let (daemon, work) = published().await;
    let done = AtomicBool::new(false);
    let (whole, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));

    let publish = async {
        for seed in 0..12 {
            write_file(&work.join("noise"), noise(seed, 500_000));
            commit_and_push(&work, "more");
            daemon.refresh().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let read = async |pin| {
        while !done.load(Ordering::Relaxed) {
            match download(&daemon, pin).await {
                Ok((location, bytes)) => {
                    let stored = daemon.get(&location, &[]).await.bytes().await.unwrap();
                    assert!(
                        bytes == stored,
                        "the ranges of {location} are of several revisions"
                    );
                    whole.fetch_add(1, Ordering::Relaxed);
                }
                Err(412) if pin == Pin::IfMatch => {
                    cut.fetch_add(1, Ordering::Relaxed);
                }
                Err(status) => panic!("{pin:?}: {status}"),
            }
        }
    };
    tokio::join!(
        publish,
        read(Pin::IfMatch),
        read(Pin::IfMatch),
        read(Pin::Token)
    );

    let (whole, cut) = (whole.into_inner(), cut.into_inner());
    assert!(whole > 0, "no download was complete, {cut} ended with 412");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_pins_a_download_unless_the_operator_wants_it_strict() {
    assert!(Config::default().if_match_pins);
    for if_match_pins in [false, true] {
        let (daemon, work) = published_with(|config| config.if_match_pins = if_match_pins).await;
        let first = daemon.get(&stable(), &[]).await;
        let etag = header(&first, "etag");
        let first = first.bytes().await.unwrap();
        publish_more(&daemon, &work).await;

        let range = ("range", "bytes=5-99");
        let part = daemon.get(&stable(), &[range, ("if-match", &etag)]).await;
        let whole = daemon.get(&stable(), &[("if-match", &etag)]).await;
        let other = daemon.get(&stable(), &[range, ("if-match", "\"x\"")]).await;

        if if_match_pins {
            assert_eq!(part.status(), 206);
            assert_eq!(header(&part, "etag"), etag);
            assert_eq!(part.bytes().await.unwrap(), first[5..100]);
        } else {
            assert_eq!(part.status(), 412);
        }
        assert_eq!(whole.status(), 412);
        assert_eq!(other.status(), 412);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_resolves_a_token_through_the_store_alone() {
    let (daemon, work) = published().await;
    let first = daemon.get(&stable(), &[]).await;
    let token = header(&first, PIN);
    let first = first.bytes().await.unwrap();
    publish_more(&daemon, &work).await;
    let data_dir = daemon.root.path().join("replica");
    fs::create_dir_all(&data_dir).unwrap();
    let store = daemon.root.path().join("data/store");
    std::os::unix::fs::symlink(store, data_dir.join("store")).unwrap();
    let replica = cachewfsd::daemon()
        .start(Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: data_dir.into(),
            upstreams: [(
                "git.example.com".to_owned(),
                "file:///nowhere".to_owned().into(),
            )]
            .into(),
            ..Config::default()
        })
        .await
        .unwrap();

    let url = format!("http://{}{}", replica.address, stable());
    let request = reqwest::Client::new().get(url).header(PIN, &token);
    let part = request.header("range", "bytes=5-99").send().await.unwrap();

    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), first[5..100]);
    replica.shutdown.cancel();
    replica.stopped().await;
}
