//! The results of reads when a daemon or the network fails, and the requests that they make.

use super::*;
use crate::segment::fetch_whole;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_is_continued_after_its_last_whole_chunk() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    let segment = fixture.start();
    // The next read is sequential, so its window is wide enough for several chunks.
    fixture.read(&segment, 0, CHUNK_LEN).await.unwrap();
    fixture.source.take_requests();
    fixture
        .source
        .fail_with([RangeFault::Cut(2 * CHUNK_LEN + 1000)]);

    fixture.read(&segment, CHUNK_LEN, 1 << 20).await.unwrap();

    let requests = fixture.source.take_requests();
    let starts: Vec<u64> = requests.iter().map(|&(at, _)| at).collect();
    let table = segment.table(Purpose::Demand).await.unwrap();
    let start_of = |chunk| table.stored_range(chunk).unwrap().start;
    assert_eq!(starts, [start_of(1), start_of(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_bytes_are_fetched_again_and_never_shown() {
    for role in [Role::Pack(PackKind::History), Role::PackIndex] {
        for len in [4 << 20, 300 << 10] {
            let fixture = Fixture::new(role, len);
            let segment = fixture.start();
            fixture.source.fail_with([
                RangeFault::Corrupt(9),
                RangeFault::Corrupt(70),
                RangeFault::Corrupt(5000),
            ]);

            for at in (0..len).step_by(64 << 10) {
                fixture.read(&segment, at, 64 << 10).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_sends_only_broken_bytes_is_an_error_within_the_deadline() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    let segment = fixture.start();
    segment.table(Purpose::Demand).await.unwrap();
    fixture
        .source
        .fail_with(vec![RangeFault::Corrupt(100); 1000]);

    let error = fixture.read(&segment, 0, 100).await.unwrap_err();

    assert!(matches!(error, ReadError::Fetch(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_answers_the_reads_of_the_next_second() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    let segment = fixture.start();
    segment.table(Purpose::Demand).await.unwrap();
    fixture.source.fail_with([RangeFault::Hang]);
    let waiting = {
        let segment = Arc::clone(&segment);
        tokio::spawn(async move { segment.read(9..10, Purpose::Demand).await })
    };
    fixture.read(&segment, 0, 100).await.unwrap_err();
    waiting.await.unwrap().unwrap_err();
    fixture.source.take_requests();

    // The kernel asks again like this.
    for _ in 0..3 {
        fixture.read(&segment, 10, 100).await.unwrap_err();
    }
    assert_eq!(fixture.source.take_requests(), []);

    fixture.read(&segment, 2 << 20, 100).await.unwrap();
    assert_eq!(fixture.source.take_requests().len(), 1);
    while fixture.read(&segment, 0, 100).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.source.take_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_answers_the_reads_of_the_next_second() {
    for len in [4 << 20, 100 << 10] {
        let fixture = Fixture::new(Role::Pack(PackKind::History), len);
        let segment = fixture.start();
        fixture.source.fail_with([RangeFault::Hang]);

        for _ in 0..3 {
            fixture.read(&segment, 0, 100).await.unwrap_err();
        }

        assert_eq!(fixture.source.take_requests().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_falls_quiet_is_continued_by_another_request() {
    let mut fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    fixture.read_timeout = Duration::from_secs(30);
    let segment = fixture.start();
    segment.table(Purpose::Demand).await.unwrap();
    fixture.source.take_requests();
    fixture.source.fail_with([RangeFault::Quiet(1000)]);

    fixture.read(&segment, 0, 100).await.unwrap();

    let requests = fixture.source.take_requests();
    let &[(0, len), (1000, rest)] = &*requests else {
        panic!("{requests:?}");
    };
    assert_eq!(rest, len - 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_waited_for_until_the_deadline() {
    // Once for the table, and once for a chunk.
    for is_table_there in [false, true] {
        let fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
        let segment = fixture.start();
        if is_table_there {
            segment.table(Purpose::Demand).await.unwrap();
        }
        fixture.source.fail_with(vec![RangeFault::Drip; 2]);

        let read = fixture.read(&segment, 0, 100);
        let read = tokio::time::timeout(fixture.read_timeout * 2, read).await;

        read.expect("in time").unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_asked_for_again_after_a_backoff() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 4 << 20);
    let segment = fixture.start();
    segment.table(Purpose::Demand).await.unwrap();
    fixture.source.take_requests();
    fixture.source.fail_with(vec![RangeFault::Short(100); 1000]);

    let error = fixture.read(&segment, 0, 100).await.unwrap_err();

    assert!(matches!(error, ReadError::Fetch(_)), "{error:?}");
    let requests = fixture.source.take_requests().len();
    assert!((2..20).contains(&requests), "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_in_its_archive_while_a_catch_up_moves_its_segments() {
    let parts = [[1; 5000], [2; 5000]];
    let stored = parts.map(|part| stored_segment(Role::PackIndex, &part));
    let bytes = |order: [usize; 2]| order.map(|part| stored[part].0.clone()).concat();
    let snapshots = ["1", "2"].map(|digit| {
        let commit = ObjectId::parse(&digit.repeat(40)).unwrap();
        SnapshotId::first(commit)
    });
    let etag = Digest::of(b"").to_string();
    let mut fixture = Fixture::new(Role::PackIndex, 1);
    fixture.source = ScriptedSource::new(bytes([0, 1]), snapshots[0], etag.clone());
    let segments = fixture.segments();
    let len = stored[0].0.len() as u64;
    let place = |snapshot: SnapshotId, offset| SegmentLocation {
        repo: RepoName::parse("example.com/project").unwrap(),
        path: format!("/{snapshot}").into(),
        offset,
    };
    let group = [0, 1].map(|part| {
        let offset = if part == 0 { 0 } else { len };
        segments.intern(&stored[part].1, place(snapshots[0], offset))
    });
    fixture.source.fail_with([RangeFault::Unavailable]);

    let fetching = fetch_whole(&group, Purpose::Background);
    let moving = async {
        tokio::task::yield_now().await;
        // In the next archive, the second segment comes first.
        fixture.source.publish(crate::testing::Archive {
            bytes: bytes([1, 0]),
            etag,
            snapshot: snapshots[1],
        });
        segments.intern(&stored[0].1, place(snapshots[1], len));
        segments.intern(&stored[1].1, place(snapshots[1], 0));
    };
    let (fetched, ()) = tokio::join!(fetching, moving);

    fetched.unwrap();
    assert_eq!(fixture.source.take_requests(), [(0, 2 * len); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_daemon_is_asked_again() {
    let fixture = Fixture::new(Role::Pack(PackKind::Tip), 2 << 20);
    fixture
        .source
        .fail_with([RangeFault::Unavailable, RangeFault::Unavailable]);

    fixture.read(&fixture.start(), 0, 2 << 20).await.unwrap();
}
