//! Tests of small objects while the bucket is unreachable, silent or refuses requests.

use cachewfs_format::RepoName;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bucket_what_is_on_disk_is_served_and_nothing_is_published() {
    let world = World::start();
    let content = noise(7, 100_000);
    let new = new_segment(&world.directory.path().join("tmp"), &content);
    let key = Key::segment(&shelf(), new.id);
    world.copies.create_segments(&shelf(), vec![new]).unwrap();
    let pointer = Key::pointer(&shelf());
    world.copies.swap(&pointer, None, b"1").unwrap();
    let elsewhere = world.put(&noise(8, 10));

    let world = world.restart(true).await;
    world.set_fault(Some(outage));

    assert!(world.read(&key, 0, content.len()).await.unwrap() == content);
    let known = world.copies.read_whole(&pointer).unwrap().unwrap();
    assert_eq!(known.bytes, b"1");
    let error = world.read(&elsewhere, 0, 10).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    let swapped = world.copies.swap(&pointer, Some(&known.version), b"2");
    assert!(swapped.unwrap_err().is_outage());

    world.set_fault(None);
    let read = world.read(&elsewhere, 0, 10).await.unwrap();
    assert!(read == noise(8, 10));
    let known = world.copies.read_whole(&pointer).unwrap().unwrap();
    world
        .copies
        .swap(&pointer, Some(&known.version), b"2")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_served_while_the_bucket_refuses_the_daemon() {
    let world = World::start();
    let (pointer, manifest) = (Key::pointer(&shelf()), manifest());
    world.copies.swap(&pointer, None, b"1").unwrap();
    world.copies.create(&manifest, b"manifest").unwrap();

    // A remembered answer would be served without a request.
    let world = world.restart(true).await;
    world.set_fault(Some(refusal));
    let known = world.copies.read_whole(&pointer).unwrap().unwrap();
    assert_eq!(known.bytes, b"1");
    let present = world.copies.read_whole(&manifest).unwrap().unwrap();
    assert_eq!(present.bytes, b"manifest");
    assert!(world.copies.stat(&manifest).unwrap().is_some());
    let listed = world.copies.list(&shelf(), ShelfPart::Manifests).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(world.copies.repositories().unwrap().len(), 1);
    // A write must fail.
    let swapped = world.copies.swap(&pointer, Some(&known.version), b"2");
    let expected = refusal().to_string();
    let error = cachewfs_base::chain(&swapped.unwrap_err());
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_counts_as_existing_for_a_fourth_of_the_notice_period() {
    let world = World::start();
    world.copies.create(&manifest(), b"manifest").unwrap();
    let at = |name: &str| world.directory.path().join(name);
    let local = DiskTier::create(&at("other-disk"), &at("other-tmp")).unwrap();
    let limits = CopyLimits { memory: 0, disk: 0 };
    let local = (local, at("other-tmp"));
    let other = Copies::new(BucketTier::new(Arc::new(world.bucket())), local, limits);
    let other = other.with_notice(NoticePeriod(Duration::from_secs(8)));

    let seen = Instant::now();
    assert!(other.stat(&manifest()).unwrap().is_some());
    world.bucket().delete(&[manifest()]).unwrap();
    let is_there = other.stat(&manifest()).unwrap().is_some();
    assert!(is_there || seen.elapsed() > Duration::from_secs(2));
    // With the default period it would count for 15 seconds.
    eventually(|| other.stat(&manifest()).unwrap().is_none()).await;
    assert!(seen.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_served_while_the_bucket_is_silent() {
    let world = World::start();
    let pointer = Key::pointer(&shelf());
    world.copies.swap(&pointer, None, b"old").unwrap();
    let manifest = manifest();
    world.copies.create(&manifest, b"manifest").unwrap();
    let read = |copies: &Copies| copies.read_whole(&pointer).unwrap().unwrap().bytes;
    let world = world.restart(true).await;
    world.bucket().directory().put(&pointer, b"new").unwrap();

    // While the gate is shut, no request to the bucket ends.
    world.small_gate.set_shut(true);
    for _ in 0..3 {
        assert_eq!(read(&world.copies), b"old");
        assert!(world.copies.stat(&manifest).unwrap().is_some());
    }
    assert_eq!(
        world.whole_reads.take(),
        1,
        "an overdue request is not repeated"
    );

    // The late answer is not lost.
    world.small_gate.set_shut(false);
    let copy = world.copy(&pointer);
    eventually(|| fs::read(&copy).unwrap() == b"new").await;
    eventually(|| read(&world.copies) == b"new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_pointer_is_as_old_as_the_question_to_the_bucket() {
    let world = World::start();
    let pointer = Key::pointer(&shelf());
    world.bucket().directory().put(&pointer, b"1").unwrap();
    let read = || world.copies.read_whole(&pointer).unwrap().unwrap().read_at;

    let (first, second) = (read(), read());

    assert_eq!(world.whole_reads.take(), 1);
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_does_not_replace_a_newer_write() {
    let world = World::start();
    let pointer = Key::pointer(&shelf());
    world.copies.swap(&pointer, None, b"1").unwrap();
    let world = world.restart(true).await;
    let known = world.bucket().read_whole(&pointer).unwrap().unwrap();

    world.small_gate.set_shut(true);
    world.copies.read_whole(&pointer).unwrap();
    let swapped = world.copies.swap(&pointer, Some(&known.version), b"2");
    assert_eq!(swapped.unwrap(), Written::New);
    // As if the answer had been in flight since before the swap.
    world.bucket().directory().put(&pointer, b"1").unwrap();
    world.small_gate.set_shut(false);

    eventually(|| world.copies.overdue.is_empty()).await;
    assert_eq!(fs::read(world.copy(&pointer)).unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_is_read_once_a_second_and_a_manifest_once() {
    let world = World::start();
    let pointer = Key::pointer(&shelf());
    world.copies.swap(&pointer, None, b"1").unwrap();
    let manifest = manifest();
    world.copies.create(&manifest, b"manifest").unwrap();
    let world = world.restart(false).await;

    for _ in 0..5 {
        world.copies.read_whole(&manifest).unwrap().unwrap();
    }
    assert_eq!(world.whole_reads.take(), 1);
    for _ in 0..5 {
        world.copies.read_whole(&pointer).unwrap().unwrap();
    }
    assert!(world.whole_reads.take() <= 2, "a second may end in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_lease_drops_the_remembered_pointer() {
    let world = World::start();
    let (pointer, lease) = (Key::pointer(&shelf()), Key::lease(&shelf()));
    world.copies.swap(&pointer, None, b"old").unwrap();
    world.copies.swap(&lease, None, b"held").unwrap();
    world.copies.read_whole(&pointer).unwrap();

    for key in [&pointer, &lease] {
        world
            .bucket()
            .directory()
            .put(key, b"another daemon's")
            .unwrap();
    }

    for key in [&lease, &pointer] {
        let read = world.copies.read_whole(key).unwrap().unwrap();
        assert_eq!(read.bytes, b"another daemon's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_whose_caller_goes_away_is_begun_again() {
    let world = World::start();
    let elsewhere = RepoName::parse("example.com/elsewhere").unwrap();
    let elsewhere = Key::pointer(&crate::Shelf::of_snapshots(&elsewhere));
    world.bucket().directory().put(&elsewhere, b"1").unwrap();

    world.other_gate.set_shut(true);
    let list = crate::Objects::repositories(&*world.copies);
    let gone = tokio::time::timeout(Duration::from_millis(20), list).await;
    world.other_gate.set_shut(false);

    assert!(gone.is_err());
    assert_eq!(world.copies.repositories().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_whose_caller_goes_away_leaves_no_remembered_pointer() {
    let world = World::start();
    let pointer = Key::pointer(&shelf());
    world.copies.swap(&pointer, None, b"1").unwrap();
    let known = world.copies.read_whole(&pointer).unwrap().unwrap();

    world.other_gate.set_shut(true);
    let swap = crate::Objects::swap(&*world.copies, &pointer, Some(&known.version), b"2");
    let gone = tokio::time::timeout(Duration::from_millis(20), swap).await;
    // As if the request had been carried out.
    world.bucket().directory().put(&pointer, b"2").unwrap();
    world.other_gate.set_shut(false);

    assert!(gone.is_err());
    let read = world.copies.read_whole(&pointer).unwrap().unwrap();
    assert_eq!(read.bytes, b"2");
}
