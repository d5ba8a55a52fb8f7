//! A real S3 server: SeaweedFS, which `packaging/setup` installs. Each test process starts one, unless
//! `with_s3` runs them: it starts one for all.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::wait::pause;

/// It takes a few seconds to start; on a busy machine more.
const MAX_LOOKS: usize = 3000;
/// Somebody else may take a free port before the server does.
const STARTS: usize = 3;
/// A key that all tests may use for everything.
const IDENTITIES: &str = r#"{"identities": [
  {"name": "tests", "credentials": [{"accessKey": "tests", "secretKey": "a secret of the tests"}],
   "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
  {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "a secret of the tests"}],
   "actions": ["Read", "List"]},
  {"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]}
]}"#;
/// A file as AWS' tools have it.
const CREDENTIALS: &str = "\
[default]
aws_access_key_id = tests
aws_secret_access_key = a secret of the tests
[reader]
aws_access_key_id = reader
aws_secret_access_key = a secret of the tests
[stranger]
aws_access_key_id = stranger
aws_secret_access_key = guessed
";
/// Waits for the end of its input, which is the end of the tests, however they end; then the server's.
const KEEPER: &str = r#"
"$@" &
server=$!
cat >/dev/null
kill -9 $server
wait $server
rm -rf "$DIRECTORY"
"#;

/// Where the server for all is: its address, a comma, its directory.
const SHARED: &str = "CACHEWFS_TEST_S3";
/// `s3` has each daemon of the harness keep its store in a bucket.
const STORE: &str = "CACHEWFS_TEST_STORE";
/// The bucket of all these daemons; each has a prefix of its own.
const SUITE: &str = "suite";

static SERVER: OnceLock<Option<S3Server>> = OnceLock::new();
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

/// An S3 server, of this process and its tests or of all.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    directory: PathBuf,
    /// The process that ends it, and its input, which is closed when this process ends; `None` if
    /// another started it.
    _keeper: Option<(Child, ChildStdin)>,
}

/// A bucket of one test.
#[derive(Clone, Debug)]
pub struct TestBucket {
    /// Its name.
    pub name: String,
    /// URL of the server.
    pub endpoint: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// A file with a profile that may do everything, and others: `reader`, `stranger`.
    pub credentials: PathBuf,
}

/// A new bucket. `None` where there is no S3 server: says so, and fails where `CACHEWFS_REQUIRE_S3` is set.
#[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
pub fn s3_bucket() -> Option<TestBucket> {
    let Some(server) = server() else {
        assert!(
            std::env::var_os("CACHEWFS_REQUIRE_S3").is_none(),
            "no S3 server: run packaging/setup seaweedfs"
        );
        println!("skipped: no S3 server; packaging/setup seaweedfs installs it");
        return None;
    };
    let number = BUCKETS.fetch_add(1, Ordering::Relaxed);
    // The system gives the id of a process again within a long run.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let id = format!("{}-{}", std::process::id(), now.as_nanos());
    let bucket = server.bucket(&format!("bucket-{id}-{number}"));
    assert!(bucket.ask("PUT", "").starts_with("HTTP/1.1 200"));
    Some(bucket)
}

fn server() -> Option<&'static S3Server> {
    let start = || S3Server::of_all().or_else(S3Server::start);
    SERVER.get_or_init(start).as_ref()
}

/// What the configuration of a daemon with its files in `directory` says of its store.
pub(crate) fn store_tables(directory: &Path) -> String {
    let Some(store) = std::env::var_os(STORE) else {
        return String::new();
    };
    assert_eq!(store, "s3", "{STORE} can be s3");
    let server = server().expect("no S3 server: run packaging/setup seaweedfs");
    let bucket = server.bucket(SUITE);
    let made = bucket.ask("PUT", "");
    let is_there = made.starts_with("HTTP/1.1 200") || made.starts_with("HTTP/1.1 409");
    assert!(is_there, "{made}");
    // A directory of a test has a name that no other has.
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_/".contains(letter);
    let directory = directory.display().to_string();
    let prefix = directory.trim_start_matches('/');
    let prefix = prefix.replace(|letter| !is_plain(letter), "-");
    format!(
        "[store.s3]\nbucket = \"{}\"\nprefix = \"{prefix}\"\nendpoint = \"{}\"\n\
         credentials_file = \"{}\"\n",
        bucket.name,
        bucket.endpoint,
        bucket.credentials.display()
    )
}

impl TestBucket {
    /// The answer to a request for an object, or for the bucket itself: head and body.
    pub fn ask(&self, method: &str, object: &str) -> String {
        let path = format!("/{}/{object}", self.name);
        ask(self.address, method, path.trim_end_matches('/')).unwrap()
    }

    /// Writes an object.
    pub fn put(&self, object: &str, body: impl AsRef<[u8]>) {
        let path = format!("/{}/{object}", self.name);
        let answer = send(self.address, ("PUT", &path), body.as_ref()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl S3Server {
    /// The one that another process started for all.
    fn of_all() -> Option<Self> {
        let place = std::env::var(SHARED).ok()?;
        let (address, directory) = place.split_once(',').unwrap();
        Some(Self {
            address: address.parse().unwrap(),
            directory: directory.into(),
            _keeper: None,
        })
    }

    /// What the environment of processes has to be that shall use this one.
    pub fn environment(&self) -> (&'static str, String) {
        let directory = self.directory.display();
        (SHARED, format!("{},{directory}", self.address))
    }

    fn bucket(&self, name: &str) -> TestBucket {
        TestBucket {
            name: name.to_owned(),
            endpoint: format!("http://{}", self.address),
            address: self.address,
            credentials: self.directory.join("credentials"),
        }
    }

    /// Starts one; `None` if it isn't installed.
    pub fn start() -> Option<Self> {
        let program = program()?;
        (0..STARTS).find_map(|_| Self::start_at(&program, &free_ports()))
    }

    fn start_at(program: &Path, ports: &[u16; 8]) -> Option<Self> {
        let directory = TempDir::with_prefix("cachewfs-s3-").unwrap().keep();
        let write = |name: &str, content: &str| {
            let mut file = File::create(directory.join(name)).unwrap();
            file.write_all(content.as_bytes()).unwrap();
        };
        write("identities.json", IDENTITIES);
        write("credentials", CREDENTIALS);
        let log = File::create(directory.join("log")).unwrap();
        let [
            s3,
            s3_grpc,
            master,
            master_grpc,
            volume,
            volume_grpc,
            filer,
            filer_grpc,
        ] = ports;
        let at = |name: &str| directory.join(name).display().to_string();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(program)
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"])
            .arg(format!("-dir={}", directory.display()))
            .arg(format!("-s3.config={}", at("identities.json")))
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.port.grpc={s3_grpc}"))
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_grpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_grpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_grpc}"))
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-s3.localSocket={}", at("s3.sock")))
            .arg(format!("-filer.localSocket={}", at("filer.sock")))
            // Each bucket has volumes of its own, and starts with seven if it isn't told otherwise.
            .args(["-master.telemetry=false", "-volume.max=1000"])
            .env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1")
            .args([
                "-master.volumeSizeLimitMB=256",
                "-master.volumePreallocate=false",
            ])
            .env("DIRECTORY", &directory)
            // Who kills the tests with all their processes doesn't kill the one that cleans up.
            .process_group(0)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let alive = keeper.stdin.take().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], *s3));
        for _ in 0..MAX_LOOKS {
            // Buckets can be made once all its parts have found each other.
            if ask(address, "PUT", "/first")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                return Some(Self {
                    address,
                    directory,
                    _keeper: Some((keeper, alive)),
                });
            }
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            if log.contains("address already in use") {
                break;
            }
            pause();
        }
        drop(alive);
        keeper.wait().ok();
        None
    }
}

fn program() -> Option<PathBuf> {
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))
    };
    let path = match std::env::var_os("CACHEWFS_WEED") {
        Some(path) => path.into(),
        None => cache()?.join("cachewfs/seaweedfs-4.48/bin/weed"),
    };
    path.exists().then_some(path)
}

/// Ports that nobody uses just now, all different.
fn free_ports() -> [u16; 8] {
    let listeners = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// The answer to a request without a body: head and body.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> Option<String> {
    send(address, (method, path), b"")
}

fn send(address: SocketAddr, (method, path): (&str, &str), body: &[u8]) -> Option<String> {
    let len = body.len();
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
