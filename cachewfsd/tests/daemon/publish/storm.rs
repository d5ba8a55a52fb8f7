//! Two daemon processes share a store. Clients download ranges through both while both publish all
//! the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cachewfs_format::Manifest;
use cachewfs_tests::{DaemonProcess, verify_archive};
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Client, Response};

use crate::support::process::start_process;
use crate::support::test_daemon::*;

const PIN: &str = "x-cachew-snapshot-pin";
/// How many times the test pushes a commit that both daemons publish at once.
const ROUNDS: u64 = 6;
/// At most this many requests of one client are in flight.
const WORKERS: usize = 8;
const PART: usize = 20_000;

fn start_daemon(root: &Path, name: &str) -> DaemonProcess {
    let shown = root.display();
    let config = format!(
        "fetch_interval = '1s'\npublish_delay = '0s'\n[upstreams]\n\
         'git.example.com' = 'file://{shown}/upstream'\n[store]\ndirectory = '{shown}/store'\n"
    );
    start_process(&root.join(name), &config, &[])
}

/// How a client pins its ranges to one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Token,
    IfMatch,
    Immutable,
}

/// An archive that a client has downloaded.
struct Download {
    etag: String,
    commit: String,
    location: String,
    bytes: Vec<u8>,
}

struct Storm {
    root: tempfile::TempDir,
    daemons: [DaemonProcess; 2],
    client: Client,
}

impl Storm {
    fn start() -> (Self, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let bare = root.path().join("upstream/org/repo.git");
        let work = create_upstream(&bare, root.path().join("work"));
        let daemons = ["one", "two"].map(|name| start_daemon(root.path(), name));
        let client = Client::new();
        let storm = Self {
            root,
            daemons,
            client,
        };
        (storm, work)
    }

    async fn get(&self, daemon: usize, path: &str, headers: &[(&str, &str)]) -> Response {
        let url = format!("{}{path}", self.daemons[daemon % 2].url());
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn refresh(&self, daemon: usize) {
        let url = format!("{}/git/{REPO}/refresh", self.daemons[daemon].url());
        let response = self.client.post(url).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
    }

    /// Pushes a commit, and makes both daemons publish at once.
    async fn publish(&self, work: &Path, round: u64) {
        write_file(&work.join("noise"), noise(round, 300_000));
        write_file(&work.join(format!("file{round}")), format!("{round}\n"));
        let commit = commit_and_push(work, "more");
        tokio::join!(self.refresh(0), self.refresh(1));
        for daemon in 0..2 {
            let now = self.get(daemon, &stable(), &[("range", "bytes=0-0")]).await;
            assert_eq!(header(&now, "x-cachew-snapshot-commit"), commit);
        }
    }

    /// Downloads the archive in ranges, through both daemons in turn. Returns the status that ended
    /// the download if it failed.
    async fn download(&self, pin: Pin, first_daemon: usize) -> Result<Download, u16> {
        let range = format!("bytes=0-{}", PART - 1);
        let first = self
            .get(first_daemon, &stable(), &[("range", &range)])
            .await;
        assert_eq!(first.status(), 206);
        let mut download = Download {
            etag: header(&first, "etag"),
            commit: header(&first, "x-cachew-snapshot-commit"),
            location: header(&first, "content-location"),
            bytes: Vec::new(),
        };
        let (path, condition) = match pin {
            Pin::Token => (stable(), Some((PIN, header(&first, PIN)))),
            Pin::IfMatch => (stable(), Some(("if-match", download.etag.clone()))),
            Pin::Immutable => (download.location.clone(), None),
        };
        let total = header(&first, "content-range");
        let len: usize = total.rsplit_once('/').unwrap().1.parse().unwrap();
        let (path, condition, etag) = (&path, &condition, &download.etag);
        download.bytes = first.bytes().await.unwrap().to_vec();
        let mut parts = stream::iter((PART..len).step_by(PART).enumerate())
            .map(|(index, start)| async move {
                let range = format!("bytes={start}-{}", start + PART - 1);
                let mut headers = vec![("range", &*range)];
                headers.extend(condition.as_ref().map(|(name, value)| (*name, &**value)));
                let part = self.get(first_daemon + index, path, &headers).await;
                if part.status() != 206 {
                    return Err(part.status().as_u16());
                }
                assert_eq!(&header(&part, "etag"), etag, "{pin:?}");
                Ok(part.bytes().await.unwrap())
            })
            .buffered(WORKERS);
        while let Some(part) = parts.next().await {
            download.bytes.extend(part?);
        }
        drop(parts);
        assert_eq!(download.bytes.len(), len);
        Ok(download)
    }

    /// Extracts the archive with stock tools, and checks that it is a clone at the announced
    /// commit.
    fn extract(&self, download: &Download) {
        let clone = untar(&download.bytes, self.root.path());
        assert_eq!(git(&clone, ["rev-parse", "HEAD"]), download.commit);
        assert_good_clone(&clone);
    }

    /// Checks that the store has all segments of all snapshots. Returns the number of snapshots.
    fn check_store(&self) -> usize {
        let directory = self.root.path().join(format!("store/v1/{REPO}.git"));
        let mut checked = 0;
        for entry in fs::read_dir(directory.join("snapshots")).unwrap() {
            let manifest = Manifest::parse(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
            for layout in manifest.archives.values() {
                for segment in layout.segments.iter().chain([&layout.tail]) {
                    let path = directory.join("segments").join(segment.id.to_string());
                    assert_eq!(fs::metadata(path).unwrap().len(), segment.len);
                }
            }
            checked += 1;
        }
        checked
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_through_two_daemons_on_one_store_never_mix_revisions() {
    let (storm, work) = Storm::start();
    storm.publish(&work, 0).await;
    let done = AtomicBool::new(false);
    let cut = AtomicUsize::new(0);

    let publish = async {
        for round in 1..=ROUNDS {
            storm.publish(&work, round).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let read = async |pin, mut daemon| {
        let mut last = None;
        // At least one download, even if the publishes end before this task runs.
        while last.is_none() || !done.load(Ordering::Relaxed) {
            daemon += 1;
            match storm.download(pin, daemon).await {
                Ok(download) => {
                    verify_archive(&download.etag, &download.bytes);
                    for daemon in 0..2 {
                        let stored = storm.get(daemon, &download.location, &[]).await;
                        assert_eq!(stored.status(), 200);
                        let is_same = stored.bytes().await.unwrap() == download.bytes;
                        assert!(
                            is_same,
                            "{pin:?}: the ranges of {} are of several revisions",
                            download.location
                        );
                    }
                    last = Some(download);
                }
                Err(412) if pin == Pin::IfMatch => {
                    cut.fetch_add(1, Ordering::Relaxed);
                }
                Err(status) => panic!("{pin:?}: {status}"),
            }
        }
        storm.extract(&last.unwrap());
    };
    let limit = Duration::from_secs(100);
    let all = async {
        tokio::join!(
            publish,
            read(Pin::Token, 0),
            read(Pin::IfMatch, 0),
            read(Pin::Immutable, 1),
        )
    };
    tokio::time::timeout(limit, all).await.unwrap();

    assert!(storm.check_store() > usize::try_from(ROUNDS).unwrap() / 2);
    let [one, two] = [0, 1].map(|daemon| storm.download(Pin::Token, daemon));
    let (one, two) = (one.await.ok().unwrap(), two.await.ok().unwrap());
    assert!(one.etag == two.etag && one.bytes == two.bytes);
}
