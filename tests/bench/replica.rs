//! Measures how soon a new replica answers from the bucket, and how fast it serves a cold archive.
//! `tests/bench/replica` runs this and says more.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement that can't be made has to fail"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cachewfs_tests::{DaemonProcess, Link, Site, TestBucket, git, s3_bucket};

/// Links to the bucket: the name, the bytes per second, and the round trip.
const LINKS: [(&str, u64, Duration); 2] = [
    ("80 MB/s, 20 ms", 80_000_000, Duration::from_millis(20)),
    ("250 MB/s, 2 ms", 250_000_000, Duration::from_millis(2)),
];
/// How many parallel requests the direct download from the bucket makes.
const CONNECTIONS: usize = 12;
/// How many bytes each of these requests asks for.
const RANGE_BYTES: u64 = 4 << 20;
const SNAPSHOT: &str = "/git/local/bench/snapshot.tar.zst";

fn main() {
    // `cargo bench` adds options of its own.
    let mut arguments = std::env::args().skip(1);
    let Some(repository) = arguments.find(|argument| !argument.starts_with("--")) else {
        print("usage: tests/bench/replica REPOSITORY [RUNS]");
        return;
    };
    let runs = std::env::var("RUNS").map_or(5, |runs| runs.parse().unwrap());
    let Some(bucket) = s3_bucket() else { return };
    let bench = Bench::set_up(Path::new(&repository), bucket);
    bench.compare("loopback", bench.bucket.address, runs);
    for (link_name, bytes_per_second, round_trip) in LINKS {
        let link = Link::start(bench.bucket.address, bytes_per_second, round_trip);
        bench.compare(link_name, link.address(), runs);
    }
}

fn print(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

/// A bucket with a published repository. The object `archive` in it is the whole archive, for the
/// comparison.
struct Bench {
    site: Site,
    bucket: TestBucket,
    archive_bytes: u64,
}

impl Bench {
    fn set_up(repository: &Path, bucket: TestBucket) -> Self {
        let site = Site::default();
        std::fs::create_dir_all(site.upstreams()).unwrap();
        let repository = repository.canonicalize().unwrap().display().to_string();
        let clone = ["clone", "-q", "--mirror", "--shared", &repository, "bench"];
        git(site.upstreams(), &clone);
        let endpoint = bucket.address;
        let mut bench = Self {
            site,
            bucket,
            archive_bytes: 0,
        };
        let publisher = bench.replica("publisher", endpoint);
        let address = publisher.address();
        publish(address);
        let (archive, _) = get(address, SNAPSHOT, None);
        bench.archive_bytes = archive.len() as u64;
        bench.bucket.put("archive", &archive);
        print(&format!("archive of {} MiB", archive.len() >> 20));
        bench
    }

    /// Starts a daemon with an empty disk, which reaches the bucket at `endpoint`.
    fn replica(&self, name: &str, endpoint: SocketAddr) -> DaemonProcess {
        let directory = self.site.path().join(name);
        std::fs::remove_dir_all(&directory).ok();
        let tables = format!(
            "[store.s3]\nbucket = \"{}\"\nendpoint = \"http://{endpoint}\"\n\
             credentials_file = \"{}\"\n",
            self.bucket.name,
            self.bucket.credentials.display()
        );
        DaemonProcess::start_with_tables(&directory, &self.site.upstreams(), &tables)
    }

    /// Makes `runs` runs with the bucket at `endpoint`, and prints each and the medians.
    fn compare(&self, link_name: &str, endpoint: SocketAddr, runs: usize) {
        let (mut first, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let began = Instant::now();
            let replica = self.replica("replica", endpoint);
            let (part, _) = get(replica.address(), SNAPSHOT, Some("bytes=-65536"));
            first.push(began.elapsed().as_secs_f64());
            assert_eq!(part.len(), 65536);
            drop(replica);

            let replica = self.replica("replica", endpoint);
            let (archive, through) = get(replica.address(), SNAPSHOT, None);
            assert_eq!(archive.len() as u64, self.archive_bytes);
            let cpu = replica.cpu_time();
            drop((replica, archive));
            let direct = self.download(endpoint);
            ratios.push(direct.as_secs_f64() / through.as_secs_f64());
            print(&format!(
                "{link_name}: first range {:.3} s after the start; cold download {:.2} s \
                 ({:.2} s of the daemon's CPU time), directly from the bucket {:.2} s",
                first.last().unwrap(),
                through.as_secs_f64(),
                cpu.as_secs_f64(),
                direct.as_secs_f64()
            ));
        }
        print(&format!(
            "{link_name}: medians of {runs}: first range {:.3} s, direct / cold download {:.2}\n",
            median(first),
            median(ratios)
        ));
    }

    /// Downloads the archive directly from the bucket, in parallel ranges. Returns how long it
    /// took.
    fn download(&self, endpoint: SocketAddr) -> Duration {
        let path = format!("/{}/archive", self.bucket.name);
        let next = AtomicU64::new(0);
        let began = Instant::now();
        let fetch = || {
            let mut connection = BufReader::new(TcpStream::connect(endpoint).unwrap());
            let mut body = Vec::new();
            loop {
                let start = next.fetch_add(RANGE_BYTES, Ordering::Relaxed);
                if start >= self.archive_bytes {
                    return;
                }
                let end = self.archive_bytes.min(start + RANGE_BYTES);
                let range = format!("bytes={start}-{}", end - 1);
                ask(&mut connection, (endpoint, &path), Some(&range), &mut body);
                assert_eq!(body.len() as u64, end - start);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(fetch);
            }
        });
        began.elapsed()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Publishes the repository, and waits for the end of the publish.
fn publish(address: SocketAddr) {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!("Host: {address}\r\nContent-Length: 0\r\nConnection: close");
    let request = format!("POST /git/local/bench/refresh HTTP/1.1\r\n{head}\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Returns the body at `path`, and how long it took, with the time to connect.
fn get(address: SocketAddr, path: &str, range: Option<&str>) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
    let mut body = Vec::new();
    ask(&mut connection, (address, path), range, &mut body);
    (body, began.elapsed())
}

/// Sends a request on an open connection, and reads the body of its answer into `body`.
fn ask(
    connection: &mut BufReader<TcpStream>,
    (host, path): (SocketAddr, &str),
    range: Option<&str>,
    body: &mut Vec<u8>,
) {
    let range = range.map_or(String::new(), |range| format!("Range: {range}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{range}\r\n");
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut line, mut len) = (String::new(), None);
    connection.read_line(&mut line).unwrap();
    assert!(line.contains(" 200") || line.contains(" 206"), "{line}");
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line).unwrap();
        let header = line.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            len = value.trim().parse().ok();
        }
    }
    body.clear();
    connection
        .take(len.expect("answers from the store have a content-length"))
        .read_to_end(body)
        .unwrap();
}
