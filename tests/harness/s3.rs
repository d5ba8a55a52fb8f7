//! A real S3 server: SeaweedFS, which `packaging/setup` installs.
//!
//! Each test process starts its own server, unless `with_s3` runs the tests: it starts one for all
//! processes, and names it in their environment.
//!
//! ```text
//! test process ──(pipe)── keeper, a shell ── weed server
//! ```
//!
//! The keeper waits for the end of the pipe, which the kernel closes however the test process ends.
//! Then it kills the server and removes the server's directory.

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

use crate::disk::write_file;
use crate::wait::pause;

/// At most this many polls of a starting server. It takes a few seconds, on a busy machine more.
const MAX_POLLS: usize = 3000;
/// At most this many attempts to start a server: another process may take one of its ports first.
const MAX_STARTS: usize = 3;
/// The users that the server knows: `tests` may do everything, `reader` may only read. Requests
/// without a signature may do everything, too: [`TestBucket`] doesn't sign its requests.
const IDENTITIES: &str = r#"{"identities": [
  {"name": "tests", "credentials": [{"accessKey": "tests", "secretKey": "a secret of the tests"}],
   "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
  {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "a secret of the tests"}],
   "actions": ["Read", "List"]},
  {"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]}
]}"#;
/// A credentials file in the format of AWS, with one profile for each user, and one (`stranger`)
/// with a key that the server doesn't know.
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
/// The script of the keeper: starts the server, waits for the end of its own input, cleans up.
const KEEPER: &str = r#"
"$@" &
server=$!
cat >/dev/null
kill -9 $server
wait $server
rm -rf "$DIRECTORY"
"#;

/// The environment variable that names the shared server: its address, a comma, its directory.
const SHARED_SERVER: &str = "CACHEWFS_TEST_S3";
/// The environment variable that, set to `s3`, puts the stores of the harness's daemons into a
/// bucket.
const STORE_KIND: &str = "CACHEWFS_TEST_STORE";
/// The bucket of these stores; each daemon has its own prefix in it.
const STORES_BUCKET: &str = "suite";

static SERVER: OnceLock<Option<S3Server>> = OnceLock::new();
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

/// An S3 server: of this process, or shared by all test processes.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    directory: PathBuf,
    /// The keeper, and the pipe that it waits for; `None` if another process started the server.
    _keeper: Option<(Child, ChildStdin)>,
}

/// A bucket for one test.
#[derive(Clone, Debug)]
pub struct TestBucket {
    /// The name of the bucket.
    pub name: String,
    /// The URL of the server.
    pub endpoint: String,
    /// The address that the server listens on.
    pub address: SocketAddr,
    /// A credentials file. Its default profile may do everything, `reader` may only read, and the
    /// server refuses `stranger`.
    pub credentials: PathBuf,
}

/// Creates a bucket.
///
/// If no S3 server is installed, prints that the test is skipped and returns `None`, or panics if
/// `CACHEWFS_REQUIRE_S3` is set.
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
    // The time is part of the name: in a long run, the system uses a process id again.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let id = format!("{}-{}", std::process::id(), now.as_nanos());
    let bucket = server.bucket(&format!("bucket-{id}-{number}"));
    assert!(bucket.ask("PUT", "").starts_with("HTTP/1.1 200"));
    Some(bucket)
}

fn server() -> Option<&'static S3Server> {
    let start = || S3Server::shared().or_else(S3Server::start);
    SERVER.get_or_init(start).as_ref()
}

/// Returns the tables that configure the store of a daemon with its files in `directory`. They are
/// empty if its store is on disk, as by default.
pub(crate) fn store_tables(directory: &Path) -> String {
    let Some(store) = std::env::var_os(STORE_KIND) else {
        return String::new();
    };
    assert_eq!(store, "s3", "{STORE_KIND} must be s3 or unset");
    let server = server().expect("no S3 server: run packaging/setup seaweedfs");
    let bucket = server.bucket(STORES_BUCKET);
    // 409: another daemon has created the bucket.
    let created = bucket.ask("PUT", "");
    let exists = created.starts_with("HTTP/1.1 200") || created.starts_with("HTTP/1.1 409");
    assert!(exists, "{created}");
    // The name of a test's directory is unique, so it makes a unique prefix.
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
    /// Sends a request for an object, or for the bucket itself if `object` is empty. Returns the
    /// head and the body of the answer.
    pub fn ask(&self, method: &str, object: &str) -> String {
        let path = format!("/{}/{object}", self.name);
        ask(self.address, method, path.trim_end_matches('/')).unwrap()
    }

    /// Writes an object, and panics if the server refuses it.
    pub fn put(&self, object: &str, body: impl AsRef<[u8]>) {
        let path = format!("/{}/{object}", self.name);
        let answer = send(self.address, ("PUT", &path), body.as_ref()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl S3Server {
    /// Returns the server that `with_s3` started for all test processes, if it did.
    fn shared() -> Option<Self> {
        let location = std::env::var(SHARED_SERVER).ok()?;
        let (address, directory) = location.split_once(',').unwrap();
        Some(Self {
            address: address.parse().unwrap(),
            directory: directory.into(),
            _keeper: None,
        })
    }

    /// Returns the name and value of the environment variable that makes other processes use this
    /// server.
    pub fn environment(&self) -> (&'static str, String) {
        let directory = self.directory.display();
        (SHARED_SERVER, format!("{},{directory}", self.address))
    }

    fn bucket(&self, name: &str) -> TestBucket {
        TestBucket {
            name: name.to_owned(),
            endpoint: format!("http://{}", self.address),
            address: self.address,
            credentials: self.directory.join("credentials"),
        }
    }

    /// Starts a server, or returns `None` if SeaweedFS isn't installed.
    pub fn start() -> Option<Self> {
        let program = program()?;
        (0..MAX_STARTS).find_map(|_| Self::start_at(&program, &free_ports()))
    }

    fn start_at(program: &Path, ports: &[u16; 8]) -> Option<Self> {
        let directory = TempDir::with_prefix("cachewfs-s3-").unwrap().keep();
        write_file(&directory.join("identities.json"), IDENTITIES);
        write_file(&directory.join("credentials"), CREDENTIALS);
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
            // Each bucket has its own volumes. By default it starts with seven, which many buckets
            // of tests would use up.
            .args(["-master.telemetry=false", "-volume.max=1000"])
            .env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1")
            .args([
                "-master.volumeSizeLimitMB=256",
                "-master.volumePreallocate=false",
            ])
            .env("DIRECTORY", &directory)
            // A process group of its own: a signal to the tests' group must not end the keeper,
            // which has to clean up.
            .process_group(0)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pipe = keeper.stdin.take().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], *s3));
        for _ in 0..MAX_POLLS {
            // Creating a bucket succeeds only after all parts of the server have found each other.
            if ask(address, "PUT", "/first")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                return Some(Self {
                    address,
                    directory,
                    _keeper: Some((keeper, pipe)),
                });
            }
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            if log.contains("address already in use") {
                break;
            }
            pause();
        }
        drop(pipe);
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

/// Returns eight different ports that are free at the moment. All listeners live until the end:
/// otherwise the kernel could give a port twice.
fn free_ports() -> [u16; 8] {
    let listeners = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Sends a request without a body. Returns the head and the body of the answer, or `None` if the
/// connection fails.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> Option<String> {
    send(address, (method, path), b"")
}

fn send(address: SocketAddr, (method, path): (&str, &str), body: &[u8]) -> Option<String> {
    let len = body.len();
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
