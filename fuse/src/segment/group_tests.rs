//! Segments that are fetched as a whole: by whom, from where, and what counts as cached then.

use std::sync::Arc;

use cachewfs_format::{PackKind, RepoName, Role, SnapshotId, TocSegment};

use super::tests::{Fixture, mixed, stored_segment};
use super::{Segment, SegmentLocation, Segments, fetch_whole};
use crate::testing::Archive;
use crate::traffic::Purpose;

/// Registers segments of the archive at `path`, each with its offset.
fn intern(segments: &Segments, path: &str, placed: &[(u64, &TocSegment)]) -> Vec<Arc<Segment>> {
    let intern = |&(offset, record): &(u64, &TocSegment)| {
        let repo = RepoName::parse("example.com/project").unwrap();
        let path = path.into();
        segments.intern(record, SegmentLocation { repo, path, offset })
    };
    placed.iter().map(intern).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_archives_share_is_fetched_once_and_each_group_from_one_archive() {
    let contents = [mixed(30_000), mixed(20_000), mixed(10_000)];
    let [a, b, c] = contents.map(|content| stored_segment(Role::WorkTree, &content));
    // The first archive has `a` and `c` at other offsets than the second, which lacks `b`.
    let fixture = Fixture::new(Role::WorkTree, 1);
    let first = [&a.0[..], &b.0, &c.0].concat();
    let second = [&[0; 5000][..], &c.0, &a.0].concat();
    let archive = |bytes, digit: &str| Archive {
        bytes,
        etag: digit.to_owned(),
        snapshot: SnapshotId::parse(&digit.repeat(40)).unwrap(),
    };
    fixture.source.publish(archive(first, "2"));
    fixture.source.publish(archive(second, "3"));
    let segments = fixture.segments();
    let (len_a, len_b, len_c) = (a.1.stored_len, b.1.stored_len, c.1.stored_len);
    let placed = [(0, &a.1), (len_a, &b.1), (len_a + len_b, &c.1)];
    let of_first = intern(&segments, &format!("/{}", "2".repeat(40)), &placed);
    let placed = [(5000, &c.1), (5000 + len_c, &a.1)];
    let of_second = intern(&segments, &format!("/{}", "3".repeat(40)), &placed);

    let fetched = tokio::join!(
        fetch_whole(&of_first, Purpose::Background),
        fetch_whole(&of_second, Purpose::Background),
        of_first[0].table(Purpose::Demand),
    );

    assert!(fetched.0.is_ok() && fetched.1.is_ok(), "{fetched:?}");
    assert!(of_first.iter().all(|segment| segment.is_cached()));
    let mut requests = fixture.source.take_requests();
    requests.sort_unstable();
    assert_eq!(requests, [(5000, len_c + len_a), (len_a, len_b)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_gives_up_leaves_its_segments_to_the_next() {
    let fixture = Fixture::new(Role::WorkTree, 30_000);
    let segments = [fixture.start()];
    fixture
        .source
        .fail_with([crate::testing::scripted::RangeFault::Hang]);

    let first = fetch_whole(&segments, Purpose::Background);
    let gave_up = tokio::time::timeout(std::time::Duration::from_millis(50), first).await;
    fetch_whole(&segments, Purpose::Background).await.unwrap();

    assert!(gave_up.is_err());
    assert!(segments[0].is_cached());
    assert_eq!(fixture.source.take_requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_counts_as_cached_also_after_a_restart() {
    let small = Fixture::new(Role::WorkTree, 300_000);
    let whole = small.start();
    assert_eq!(whole.cached_bytes(), 0);
    fetch_whole(&[Arc::clone(&whole)], Purpose::Background)
        .await
        .unwrap();
    let large = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    let part = large.start();
    large.read(&part, 1 << 20, 100).await.unwrap();

    for segment in [whole, small.start()] {
        assert_eq!(segment.cached_bytes(), small.record.stored_len);
    }
    let cached = part.cached_bytes();
    assert!((100_000..2 << 20).contains(&cached), "{cached}");
    let restarted = large.start();
    assert_eq!(restarted.cached_bytes(), cached);
    large.read(&part, 3 << 20, 100).await.unwrap();
    assert_eq!(restarted.cached_bytes(), part.cached_bytes());
    assert!(part.cached_bytes() > cached);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_mount_evicts_no_longer_counts_as_kept() {
    let fixture = Fixture::new(Role::WorkTree, 30_000);
    let segments = [fixture.start()];
    fetch_whole(&segments, Purpose::Background).await.unwrap();
    segments[0].check_kept(0..30_000).unwrap();

    fixture.evict_as_another_mount();

    assert!(segments[0].is_evicted());
    segments[0].check_kept(0..30_000).unwrap_err();
    assert!(!segments[0].is_evicted());
    fetch_whole(&segments, Purpose::Background).await.unwrap();
    segments[0].check_kept(0..30_000).unwrap();
}
