//! The daemon with its store in a bucket, on an S3 server that the tests start.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use cachewfs_daemon::{Config, S3Config};
use cachewfs_format::Manifest;
use cachewfs_tests::{Fault, Proxy, TestBucket, s3_bucket};

use crate::support::bucket::*;
use crate::support::test_daemon::*;

async fn read_metric(daemon: &TestDaemon, sample: &str) -> u64 {
    let text = daemon.get("/metrics", &[]).await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("no {sample} in {text}"))
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_serves_at_once_and_restores_its_mirror() {
    let Some(bucket) = s3_bucket() else { return };
    let daemon = start(&bucket).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 20_000_000));
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let published = daemon.get(&stable(), &[]).await;
    let etag = header(&published, "etag");
    let published = published.bytes().await.unwrap();
    assert_eq!(
        read_metric(&daemon, "cachewfsd_store_reads_total{tier=\"s3\"}").await,
        0
    );

    let root = daemon.stop().await;
    fs::remove_dir_all(root.path().join("data")).unwrap();
    let began = Instant::now();
    let config = config(&bucket);
    let daemon = TestDaemon::start_in(root, |all| all.store.s3 = Some(config)).await;
    let part = daemon.get(&stable(), &[("range", "bytes=-65536")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(header(&part, "etag"), etag);
    let part = part.bytes().await.unwrap();
    let took = began.elapsed();
    assert!(part == published[published.len() - 65536..]);
    println!("first range after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let whole = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    assert!(whole == published);
    assert!(read_metric(&daemon, "cachewfsd_store_reads_total{tier=\"s3\"}").await > 0);
    let immutable = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    let range = daemon
        .get(&immutable, &[("range", "bytes=7000000-7999999")])
        .await;
    assert!(range.bytes().await.unwrap() == published[7_000_000..8_000_000]);

    // The mirror is restored from the bucket, and the next snapshot builds on the stored one.
    write_file(&work.join("small"), "small\n");
    let second = commit_and_push(&work, "two");
    assert_eq!(daemon.refresh().await["snapshot"], second);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
    let old = daemon.get(&immutable, &[]).await.bytes().await.unwrap();
    assert!(old == published, "a commit's URL keeps its bytes");
    let objects = bucket.ask("GET", "?list-type=2&prefix=v1/");
    assert!(
        objects.contains(&format!("snapshots/{second}")),
        "{objects}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn local_copies_are_served_during_an_outage_and_publishing_resumes_after_it() {
    let Some(bucket) = s3_bucket() else { return };
    let proxy = Proxy::start(bucket.address);
    let through = S3Config {
        endpoint: Some(proxy.url()),
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        ..config(&bucket)
    };
    let config = through.clone();
    let daemon = TestDaemon::start_with(|all| all.store.s3 = Some(config)).await;
    let work = daemon.create_upstream();
    write_file(&work.join("noise"), noise(1, 3_000_000));
    let first = commit_and_push(&work, "one");
    daemon.refresh().await;
    let published = daemon.get(&stable(), &[]).await.bytes().await.unwrap();

    // The daemon also serves its copies after a restart.
    proxy.set(Fault::Unavailable);
    let root = daemon.stop().await;
    let config = through.clone();
    let daemon = TestDaemon::start_in(root, |all| all.store.s3 = Some(config)).await;
    let served = daemon.get(&stable(), &[]).await;
    assert_eq!(header(&served, "x-cachew-snapshot-commit"), first);
    assert!(served.bytes().await.unwrap() == published);
    write_file(&work.join("small"), "small\n");
    let second = commit_and_push(&work, "two");
    let refused = daemon.post(&format!("/git/{REPO}/refresh"), "").await;
    assert_eq!(refused.status(), 500, "{}", refused.text().await.unwrap());
    let served = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    assert!(served == published);

    proxy.set(Fault::None);
    daemon
        .status_when(|status| status["published"]["snapshot"] == second)
        .await;
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_an_unusable_bucket_fails_with_the_reason() {
    let Some(bucket) = s3_bucket() else { return };
    let (ignores, _thread) = ignores_conditions();
    let of = |change: fn(&mut S3Config)| {
        let mut config = config(&bucket);
        change(&mut config);
        config
    };
    let not_there = of(|config| config.bucket = "not-there".to_owned());
    let stranger = of(|config| config.profile = Some("stranger".to_owned()));
    let reader = of(|config| config.profile = Some("reader".to_owned()));
    let nobody = of(|config| config.profile = Some("nobody".to_owned()));
    let unconditional = S3Config {
        endpoint: Some(ignores),
        ..config(&bucket)
    };
    for (s3, said) in [
        (not_there, "the bucket doesn't exist"),
        (stranger, "refuses the daemon's credentials"),
        (reader, "refuses the daemon's credentials"),
        (nobody, "no credentials for the bucket"),
        (unconditional, "doesn't honour If-None-Match"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: directory.path().to_owned().into(),
            ..Config::default()
        };
        config.store.s3 = Some(s3);

        let Err(error) = cachewfsd::daemon().start(config).await else {
            panic!("the daemon started, but expected the error: {said}");
        };

        let error = anyhow::Error::from(error);
        assert!(format!("{error:#}").contains(said), "{error:#}");
    }
}

/// Starts a service that ignores preconditions: it answers 200 to every write, as some services do.
fn ignores_conditions() -> (String, std::thread::JoinHandle<()>) {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |stream: std::net::TcpStream| {
        let mut reader = BufReader::new(stream);
        let (mut len, mut content) = (0, "");
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                break;
            }
            let line = line.to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line.starts_with("get ") {
                content = "<ListBucketResult></ListBucketResult>";
            }
            if line == "\r\n" {
                let mut body = vec![0; len];
                reader.read_exact(&mut body).unwrap();
                let head = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length:";
                let answer = format!("{head} {}\r\n\r\n{content}", content.len());
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                (len, content) = (0, "");
            }
        }
    };
    let serve = move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    };
    (url, std::thread::spawn(serve))
}

/// Returns the ids of the segments that the manifests in the bucket name.
fn named_segments(bucket: &TestBucket) -> BTreeSet<String> {
    let mut segments = BTreeSet::new();
    for id in objects(bucket, "snapshots") {
        let answer = bucket.ask("GET", &format!("v1/{REPO}.git/snapshots/{id}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let manifest = Manifest::parse(body.as_bytes()).unwrap();
        segments.extend(manifest.segments().iter().map(ToString::to_string));
    }
    segments
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_no_snapshot_needs_are_deleted_from_a_bucket() {
    let Some(bucket) = s3_bucket() else { return };
    let config = config(&bucket);
    let change = |all: &mut Config| {
        all.store.s3 = Some(config.clone());
        all.store.collect_interval = Duration::from_millis(500);
        all.store.delete_notice = Duration::from_secs(2);
        all.keep_snapshots = 1;
        all.keep_age = Duration::ZERO;
        all.delete_grace = Duration::ZERO;
    };
    let daemon = TestDaemon::start_with(change).await;
    let work = daemon.create_upstream();
    fill(&work);
    let first = commit_and_push(&work, "first");
    daemon.refresh().await;
    let before = objects(&bucket, "segments");
    for n in 0..3 {
        write_file(&work.join("src/0/0.txt"), format!("changed {n}\n"));
        commit_and_push(&work, "more");
        daemon.refresh().await;
    }
    let last = git(&work, ["rev-parse", "HEAD"]).trim().to_owned();
    // A daemon lists repositories when it starts, and then not for half a minute. The first listing
    // was empty, so a restart is needed for the collector to see this repository.
    let daemon = TestDaemon::start_in(daemon.stop().await, change).await;

    eventually(|| objects(&bucket, "snapshots").iter().eq([&last])).await;
    eventually(|| objects(&bucket, "segments") == named_segments(&bucket)).await;
    assert!(!before.is_subset(&objects(&bucket, "segments")));
    let gone = format!("/git/{REPO}/snapshot/{first}.tar.zst");
    assert_eq!(daemon.get(&gone, &[]).await.status(), 404);
    assert_good_clone(&daemon.extract("snapshot.tar.zst").await);

    // A deleted snapshot never comes back under its old id, even at the same commit.
    git(&work, ["reset", "--quiet", "--hard", &first]);
    git(&work, ["push", "--quiet", "--force", "origin", "HEAD"]);
    let again = daemon.refresh().await;
    let again = again["snapshot"].as_str().unwrap();
    assert!(again.starts_with(&format!("{first}-")), "{again}");
    assert_eq!(daemon.get(&gone, &[]).await.status(), 404);

    // Forgetting deletes the manifests at once. The next garbage collection deletes the segments.
    let forget = format!("/api/v1/repos/{REPO}/forget?store=true");
    assert_eq!(daemon.post(&forget, "").await.status(), 200);
    assert_eq!(objects(&bucket, "snapshots").len(), 0);
    assert_eq!(
        daemon.get(&stable(), &[]).await.status(),
        200,
        "the snapshot is built again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_download_reads_each_byte_of_the_bucket_once() {
    let Some(bucket) = s3_bucket() else { return };
    let daemon = start(&bucket).await;
    let work = daemon.create_upstream();
    for part in 0..3 {
        write_file(&work.join(format!("noise-{part}")), noise(part, 8_000_000));
    }
    commit_and_push(&work, "one");
    daemon.refresh().await;
    let len = daemon
        .get(&stable(), &[])
        .await
        .bytes()
        .await
        .unwrap()
        .len();

    let daemon = replace(daemon, config(&bucket)).await;
    let began = Instant::now();
    let cold = daemon.get(&stable(), &[]).await.bytes().await.unwrap();
    let took = began.elapsed();
    assert_eq!(cold.len(), len);
    println!(
        "{} MB from the bucket in {took:?}, {} MB/s",
        len / 1_000_000,
        len as f64 / 1e6 / took.as_secs_f64()
    );
    let bytes = read_metric(&daemon, "cachewfsd_store_read_bytes_total{tier=\"s3\"}").await;
    assert!(bytes <= len as u64 + (1 << 20), "{bytes} for {len}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_copies_belongs_to_one_daemon() {
    let Some(bucket) = s3_bucket() else { return };
    let copies = tempfile::tempdir().unwrap();
    let directory = copies.path().join("copies");
    let s3 = config(&bucket);
    let change = |config: &mut Config| {
        config.store.s3 = Some(s3.clone());
        config.store.directory = Some(directory.clone());
    };
    let first = TestDaemon::start_with(change).await;
    let root = tempfile::tempdir().unwrap();
    let mut second = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: root.path().to_owned().into(),
        ..Config::default()
    };
    change(&mut second);

    let refused = cachewfsd::daemon().start(second.clone()).await;
    drop(first.stop().await);
    let started = cachewfsd::daemon().start(second).await.unwrap();

    let error = refused.err().unwrap().to_string();
    let said = format!("another daemon uses {}", directory.display());
    assert_eq!(error, said);
    started.shutdown.cancel();
    started.stopped().await;
}
