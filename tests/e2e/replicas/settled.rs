//! The checks after a storm, when no replica is faulty and no repository changes any more.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cachewfs_format::{Manifest, Pointer};
use cachewfs_tests::{TestBucket, http_request, wait_up_to};

use super::client::Client;
use super::cluster::{Cluster, REPLICAS};
use super::reader::{self, SeenUrls};
use super::upstreams::{Upstream, Upstreams, refs};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the replicas may take to settle: backoffs after failures have to end, and delayed work
/// has to be done.
const PATIENCE: Duration = Duration::from_mins(4);

/// Waits until all replicas serve the same archives of upstream's present HEAD.
pub(super) fn wait_until_settled(cluster: &Cluster, upstreams: &Upstreams) {
    for upstream in upstreams.all() {
        let what = format!("all replicas serve {}", upstream.name);
        wait_up_to(PATIENCE, &what, || {
            is_settled(cluster.addresses(), upstream)
        });
    }
}

fn is_settled(addresses: [SocketAddr; REPLICAS], upstream: &Upstream) -> bool {
    let refreshed = addresses.map(|address| {
        let answer = http_request(address, ("POST", &upstream.url("refresh")), &[], LIMIT);
        answer.is_ok_and(|answer| answer.status == 200)
    });
    let mut served = BTreeSet::new();
    for archive in ["snapshot.tar.zst", "mirror.tar.zst"] {
        served.clear();
        for address in addresses {
            let target = upstream.url(archive);
            let Ok(answer) = http_request(address, ("HEAD", &target), &[], LIMIT) else {
                return false;
            };
            let commit = answer.header("x-cachew-snapshot-commit").to_owned();
            served.insert((answer.status, commit, answer.header("etag").to_owned()));
        }
        if served.len() != 1 {
            return false;
        }
    }
    let is_newest =
        |(status, commit, _): &(u16, String, String)| *status == 200 && *commit == upstream.head();
    refreshed.iter().all(|refreshed| *refreshed) && served.iter().all(is_newest)
}

/// Downloads the archives of all repositories, and compares their files, objects and refs with
/// upstream.
pub(super) fn check_served(
    client: &mut Client<'_>,
    seen: &SeenUrls,
    (upstreams, directory): (&Upstreams, &Path),
) {
    for upstream in upstreams.all() {
        let clone =
            reader::download_whole(client, seen, &upstream.url("snapshot.tar.zst")).unwrap();
        assert_eq!(clone.commit, upstream.head());
        reader::check_clone(directory, upstream, &clone);
        let mirror = reader::download_whole(client, seen, &upstream.url("mirror.tar.zst")).unwrap();
        reader::check_mirror(directory, upstream, &mirror);
        assert_eq!(
            refs(&directory.join("clone")),
            upstream.refs(),
            "{}",
            upstream.name
        );
    }
}

/// The manifests and segments in the bucket, and the segments that the manifests reference.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) manifests: usize,
    pub(super) segments: BTreeSet<String>,
    pub(super) referenced: BTreeSet<String>,
}

/// Runs garbage collection until manifests reference all segments in the bucket.
pub(super) fn wait_until_collected(cluster: &Cluster, upstreams: &Upstreams) -> Stored {
    let mut stored = Stored::default();
    wait_up_to(PATIENCE, "the bucket has no unreferenced segments", || {
        // In parallel: each collection waits for its own deletion notice.
        thread::scope(|scope| {
            for upstream in upstreams.all() {
                scope.spawn(|| cluster.collect(&format!("local/{}", upstream.name)));
            }
        });
        stored = check_bucket(&cluster.bucket, upstreams);
        stored.segments == stored.referenced
    });
    stored
}

/// Panics unless the bucket has all segments that manifests reference, and each pointer names a
/// manifest.
fn check_bucket(bucket: &TestBucket, upstreams: &Upstreams) -> Stored {
    let mut all = Stored::default();
    for upstream in upstreams.all() {
        let stored = stored_objects(bucket, upstream);
        let missing: Vec<_> = stored.referenced.difference(&stored.segments).collect();
        assert!(
            missing.is_empty(),
            "{} lacks referenced segments: {missing:?}",
            upstream.name
        );
        all.manifests += stored.manifests;
        all.segments.extend(stored.segments);
        all.referenced.extend(stored.referenced);
    }
    all
}

fn stored_objects(bucket: &TestBucket, upstream: &Upstream) -> Stored {
    let shelf = format!("v1/local/{}.git", upstream.name);
    let last = |key: &String| key.rsplit('/').next().unwrap().to_owned();
    // Segments are listed before manifests are read. A manifest that is read later still has all
    // its segments, so the list must contain them. In the other order, garbage collection could
    // delete a manifest and its segments in between, and the segments would seem to be missing.
    let segments = bucket.keys(&format!("{shelf}/segments/"));
    let manifests = bucket.keys(&format!("{shelf}/snapshots/"));
    let pointer = bucket.object(&format!("{shelf}/current")).unwrap();
    let current = Pointer::parse(&pointer).unwrap().snapshot.to_string();
    assert!(manifests.iter().any(|key| last(key) == current));
    let mut stored = Stored {
        manifests: manifests.len(),
        segments: segments.iter().map(last).collect(),
        referenced: BTreeSet::new(),
    };
    for key in &manifests {
        let Some(manifest) = bucket.object(key) else {
            continue;
        };
        let manifest = Manifest::parse(&manifest).unwrap();
        for layout in manifest.archives.values() {
            let all = layout.segments.iter().chain([&layout.tail]);
            stored
                .referenced
                .extend(all.map(|segment| segment.id.to_string()));
        }
    }
    stored
}
