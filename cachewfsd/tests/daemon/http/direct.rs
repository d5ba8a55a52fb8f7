//! Direct reads: the daemon redirects clients to the bucket for ranges of which it has no copy.

use std::ops::Range;
use std::time::Duration;

use cachewfs_daemon::S3Config;
use cachewfs_format::{ArchiveKind, Manifest};
use cachewfs_tests::{TestBucket, s3_bucket};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};

use crate::support::test_daemon::*;

const DIRECT: (&str, &str) = ("x-cachewfs-direct", "1");

/// A published repository, with the ranges of its segments in the checkout archive.
struct PublishedRepository {
    daemon: TestDaemon,
    immutable: String,
    whole: Vec<u8>,
    segments: Vec<Range<u64>>,
    client: Client,
}

impl PublishedRepository {
    /// Starts a daemon that keeps at most `disk_bytes` of copies, and publishes a repository.
    async fn start(
        bucket: &TestBucket,
        disk_bytes: u64,
        change: impl FnOnce(&mut S3Config),
    ) -> Self {
        let mut s3 = S3Config {
            bucket: bucket.name.clone(),
            endpoint: Some(bucket.endpoint.clone()),
            credentials_file: Some(bucket.credentials.clone()),
            direct_reads: true,
            ..S3Config::default()
        };
        change(&mut s3);
        let daemon = TestDaemon::start_with(|config| {
            config.store.s3 = Some(s3);
            config.store.disk_bytes = disk_bytes;
            config.store.memory_bytes = 0;
        })
        .await;
        let work = daemon.create_upstream();
        write_file(&work.join("noise"), noise(1, 6_000_000));
        let commit = commit_and_push(&work, "one");
        daemon.refresh().await;
        let whole = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
        let answer = bucket.ask("GET", &format!("/v1/{REPO}.git/snapshots/{commit}"));
        let manifest = answer.split_once("\r\n\r\n").unwrap().1;
        let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
        let mut end = 0;
        let layout = &manifest.archives[&ArchiveKind::Checkout];
        let segments = layout.segments.iter().chain([&layout.tail]).map(|segment| {
            end += segment.len;
            end - segment.len..end
        });
        Self {
            segments: segments.collect(),
            immutable: format!("/git/{REPO}/snapshot/{commit}.tar.zst"),
            whole: whole.to_vec(),
            daemon,
            client: Client::builder().redirect(Policy::none()).build().unwrap(),
        }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method, self.daemon.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, range: &Range<u64>, headers: &[(&str, &str)]) -> Response {
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        let headers = [headers, &[("range", &range)]].concat();
        self.ask(Method::GET, &self.immutable, &headers).await
    }

    fn bytes(&self, range: &Range<u64>) -> &[u8] {
        let index = |offset: u64| usize::try_from(offset).unwrap();
        &self.whole[index(range.start)..index(range.end)]
    }

    fn longest(&self) -> Range<u64> {
        let longest = self
            .segments
            .iter()
            .max_by_key(|range| range.end - range.start);
        longest.unwrap().clone()
    }
}

/// Follows a redirect. Returns the status and the bytes of the response.
async fn follow(client: &Client, answer: &Response) -> (u16, Vec<u8>) {
    let range = header(answer, "x-cachewfs-direct-range");
    let request = client.get(header(answer, "location"));
    let there = request.header("range", range).send().await.unwrap();
    (
        there.status().as_u16(),
        there.bytes().await.unwrap().to_vec(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_in_one_segment_is_redirected_to_the_bucket_if_the_client_accepts_it() {
    let Some(bucket) = s3_bucket() else { return };
    let published = PublishedRepository::start(&bucket, 0, |_| {}).await;

    for segment in &published.segments {
        let middle = u64::midpoint(segment.start, segment.end);
        for part in [
            segment.clone(),
            middle..segment.end,
            segment.start..middle.max(1),
        ] {
            if part.is_empty() {
                continue;
            }
            let answer = published.get(&part, &[DIRECT]).await;
            let text = format!("{part:?} of {segment:?}");
            assert_eq!(answer.status(), 307, "{text}");
            assert_eq!(header(&answer, "cache-control"), "private, no-store");
            let (status, bytes) = follow(&published.client, &answer).await;
            assert_eq!(status, 206, "{text}");
            assert!(bytes == published.bytes(&part), "{text}");
        }
    }
    for pair in published.segments.windows(2) {
        let across = pair[0].end - 1..pair[1].start + 1;
        let answer = published.get(&across, &[DIRECT]).await;
        assert_eq!(answer.status(), 206);
        assert!(answer.bytes().await.unwrap() == published.bytes(&across));
    }
    let part = published.longest();
    for headers in [&[][..], &[("x-cachewfs-direct", "0")]] {
        let answer = published.get(&part, headers).await;
        assert_eq!(answer.status(), 206);
        assert!(answer.bytes().await.unwrap() == published.bytes(&part));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_and_errors_come_before_a_redirect() {
    let Some(bucket) = s3_bucket() else { return };
    let published = PublishedRepository::start(&bucket, 0, |_| {}).await;
    let part = published.longest();
    let etag = header(&published.ask(Method::HEAD, &stable(), &[]).await, "etag");
    let range = format!("bytes={}-{}", part.start, part.end - 1);
    let range = ("range", range.as_str());
    let beyond = format!("bytes={}-", published.whole.len());

    for (headers, status) in [
        (&[range, ("if-none-match", &*etag)][..], 304),
        (&[range, ("if-match", "\"other\"")], 412),
        (&[range, ("if-range", "\"other\"")], 200),
        (&[("range", &*beyond)], 416),
        (&[("range", "bytes=0-1,3-4")], 200),
        (&[], 200),
        (&[range, ("if-range", &*etag), ("if-match", &*etag)], 307),
    ] {
        let headers = [headers, &[DIRECT]].concat();
        let answer = published
            .ask(Method::GET, &published.immutable, &headers)
            .await;
        assert_eq!(answer.status(), status, "{headers:?}");
    }
    for (method, path) in [
        (Method::HEAD, &*published.immutable),
        (Method::HEAD, &*stable()),
        (Method::GET, &*stable()),
    ] {
        let answer = published.ask(method.clone(), path, &[range, DIRECT]).await;
        assert!(answer.status().is_success(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_range_or_any_range_with_direct_reads_off_comes_from_the_daemon() {
    let Some(bucket) = s3_bucket() else { return };
    let near = PublishedRepository::start(&bucket, u64::MAX, |_| {}).await;
    let part = near.longest();

    let answer = near.get(&part, &[DIRECT]).await;

    assert_eq!(answer.status(), 206);
    assert!(answer.bytes().await.unwrap() == near.bytes(&part));
    let Some(bucket) = s3_bucket() else { return };
    let off = PublishedRepository::start(&bucket, 0, |s3| s3.direct_reads = false).await;
    let answer = off.get(&part, &[DIRECT]).await;
    assert_eq!(answer.status(), 206);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_allows_one_range_and_expires() {
    let Some(bucket) = s3_bucket() else { return };
    let ttl = Duration::from_secs(1);
    let published = PublishedRepository::start(&bucket, 0, |s3| s3.direct_reads_ttl = ttl).await;
    let answer = published.get(&published.longest(), &[DIRECT]).await;
    let url = header(&answer, "location");

    let other = published.client.get(&url).header("range", "bytes=0-99");
    assert_eq!(other.send().await.unwrap().status(), 403);
    let whole = published.client.get(&url).send().await.unwrap();
    assert!(!whole.status().is_success(), "{}", whole.status());
    until(async || {
        let (status, _) = follow(&published.client, &answer).await;
        if status == 403 { Ok(()) } else { Err(status) }
    })
    .await;
}
