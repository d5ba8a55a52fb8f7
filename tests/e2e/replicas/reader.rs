//! Downloads archives in ranges or whole. Verifies each byte, and that immutable URLs never change.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cachewfs_format::Digest;
use cachewfs_tests::{HttpAnswer, extract_archive, git, verify_archive, write_file};

use super::client::Client;
use super::upstreams::Upstream;

/// The bytes of one Range request.
const PART: usize = 16 << 10;
/// The name of an event: a snapshot was asked for that the daemons no longer keep.
pub(super) const EXPIRED: &str = "snapshots that were too old";

/// The `ETag` and the digest of the body that each immutable URL first answered with. Later answers
/// must have the same ones.
#[derive(Debug, Default)]
pub(super) struct SeenUrls(Mutex<HashMap<String, (String, Digest)>>);

impl SeenUrls {
    fn check(&self, location: &str, etag: &str, bytes: &[u8]) {
        let now = (etag.to_owned(), Digest::of(bytes));
        let mut seen = self.0.lock().unwrap();
        let first = seen
            .entry(location.to_owned())
            .or_insert_with(|| now.clone());
        assert_eq!(*first, now, "{location} has two contents");
    }

    /// Returns all URLs seen so far.
    pub(super) fn urls(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

/// An archive, and the commit that the answer named as its snapshot.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) commit: String,
    pub(super) bytes: Vec<u8>,
}

/// Downloads the current archive in ranges, in random order, from all replicas. Returns `None` if
/// the snapshot expired during the download.
pub(super) fn download_in_ranges(
    client: &mut Client<'_>,
    seen: &SeenUrls,
    (upstream, archive): (&Upstream, &str),
) -> Option<Download> {
    let first = client.get(&upstream.url(archive), &[("Range", "bytes=-4000")]);
    assert_eq!(first.status, 206, "{archive}: {}", first.text());
    let commit = first.header("x-cachew-snapshot-commit").to_owned();
    upstream.assert_was_head(&commit);
    let (location, etag) = (first.header("content-location"), first.header("etag"));
    let (_, len) = first.header("content-range").rsplit_once('/').unwrap();
    let len: usize = len.parse().unwrap();
    let mut bytes = vec![0; len];
    let mut starts: Vec<_> = (0..len).step_by(PART).collect();
    client.dice.shuffle(&mut starts);
    for start in starts {
        let end = len.min(start + PART);
        let range = format!("bytes={start}-{}", end - 1);
        let part = client.get(location, &[("Range", &range)]);
        if has_expired(client, &part) {
            return None;
        }
        assert_eq!(part.status, 206, "{location} {range}: {}", part.text());
        assert_eq!(part.header("etag"), etag, "{location} {range}");
        let expected = format!("bytes {start}-{}/{len}", end - 1);
        assert_eq!(part.header("content-range"), expected, "{location}");
        bytes[start..end].copy_from_slice(&part.body);
    }
    assert!(
        bytes.ends_with(&first.body),
        "{location}: the end has changed"
    );
    verify_archive(etag, &bytes);
    seen.check(location, etag, &bytes);
    client.counts.add("downloads in ranges");
    Some(Download { commit, bytes })
}

/// Downloads the archive at `url` with one request. Returns `None` if the snapshot has expired.
pub(super) fn download_whole(
    client: &mut Client<'_>,
    seen: &SeenUrls,
    url: &str,
) -> Option<Download> {
    let answer = client.get(url, &[]);
    if has_expired(client, &answer) {
        return None;
    }
    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    let etag = answer.header("etag").to_owned();
    verify_archive(&etag, &answer.body);
    // Only answers of the stable URL name their immutable URL.
    let location = match answer.header("content-location") {
        "" => url,
        location => location,
    };
    seen.check(location, &etag, &answer.body);
    client.counts.add("downloads as a whole");
    Some(Download {
        commit: answer.header("x-cachew-snapshot-commit").to_owned(),
        bytes: answer.body,
    })
}

/// Returns whether the answer is 404, because the daemons keep only the newest snapshots.
fn has_expired(client: &Client<'_>, answer: &HttpAnswer) -> bool {
    if answer.status == 404 {
        assert!(answer.text().contains("no_snapshot"), "{}", answer.text());
        client.counts.add(EXPIRED);
    }
    answer.status == 404
}

/// Extracts an archive with stock tools below `directory`, whose content is removed first. Returns
/// the directory of the clone.
pub(super) fn extract(directory: &Path, bytes: &[u8]) -> PathBuf {
    fs::remove_dir_all(directory).ok();
    let clone = directory.join("clone");
    fs::create_dir_all(&clone).unwrap();
    let archive = directory.join("archive.tar.zst");
    write_file(&archive, bytes);
    extract_archive(&archive, &clone);
    clone
}

/// Extracts a checkout archive, and compares the clone with upstream.
pub(super) fn check_clone(directory: &Path, upstream: &Upstream, download: &Download) {
    let clone = extract(directory, &download.bytes);
    upstream.assert_clone(&clone, &download.commit);
}

/// Extracts a mirror archive, and checks its HEAD and its objects.
pub(super) fn check_mirror(directory: &Path, upstream: &Upstream, download: &Download) {
    let mirror = extract(directory, &download.bytes);
    assert_eq!(git(&mirror, &["rev-parse", "HEAD"]).trim(), download.commit);
    upstream.assert_was_head(&download.commit);
    git(&mirror, &["fsck", "--strict", "--no-progress"]);
}
