//! Three replicas. Each has its own address and disk, and reaches S3 and upstream over a network.
//!
//! ```text
//! replica 1, namespace h1 ──┐            ┌── address 2: proxy ── the bucket's S3 server
//! replica 2, namespace h2 ──┼── bridge ──┤
//! replica 3, namespace h3 ──┘            └── address 3: upstream, over HTTP
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use cachewfs_tests::{
    DaemonProcess, GitHttpServer, Network, Proxy, SmallDisk, TestBucket, binary, wait_until,
};

pub(super) const REPLICAS: usize = 3;
const PORT: u16 = 8080;
/// The size of a replica's disk: more than the mirrors and cached copies of all repositories take.
const DISK: &str = "256m";

/// A resource that a replica can lose: the connection to a server, or space on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    S3,
    Upstream,
    DiskSpace,
}

/// Three running replicas. Dropping the cluster ends them.
#[derive(Debug)]
pub(super) struct Cluster {
    // Fields are dropped in this order: first the replicas, then the servers and the network.
    replicas: [Replica; REPLICAS],
    _upstream: GitHttpServer,
    _s3: Proxy,
    network: Network,
    pub(super) bucket: TestBucket,
    directory: PathBuf,
}

#[derive(Debug)]
struct Replica {
    process: Mutex<DaemonProcess>,
    address: SocketAddr,
    disk: SmallDisk,
}

impl Cluster {
    /// Starts the replicas, with their logs and configuration files in `directory`. Returns `None`
    /// if this machine can't have network namespaces or a tmpfs.
    pub(super) fn start(directory: &Path, upstreams: &Path, bucket: TestBucket) -> Option<Self> {
        let network = Network::create(3)?;
        let s3 = Proxy::start_at((network.local_address(2), 0).into(), bucket.address);
        let upstream = GitHttpServer::start(network.local_address(3).into(), upstreams);
        let mut replicas = Vec::new();
        for host in 1..=3 {
            let disk = SmallDisk::mount(DISK)?;
            let address = SocketAddr::from((network.address(host), PORT));
            let text = configure(
                &disk.path().join("data"),
                &upstream.url(),
                (&s3.url(), &bucket),
            );
            let namespace = network.namespace(host);
            let wrapper = ["ip", "netns", "exec", &namespace];
            let process = DaemonProcess::launch(
                &directory.join(format!("replica-{host}")),
                (&wrapper, address),
                &text,
            );
            replicas.push(Replica {
                process: Mutex::new(process),
                address,
                disk,
            });
        }
        Some(Self {
            replicas: replicas.try_into().ok()?,
            _upstream: upstream,
            _s3: s3,
            network,
            bucket,
            directory: directory.to_owned(),
        })
    }

    /// Returns the addresses of the replicas.
    pub(super) fn addresses(&self) -> [SocketAddr; REPLICAS] {
        self.replicas.each_ref().map(|replica| replica.address)
    }

    /// Returns the URLs of all replicas, in the form in which a mount takes them.
    pub(super) fn urls(&self) -> String {
        let urls = self.addresses().map(|address| format!("http://{address}"));
        urls.join(",")
    }

    /// Runs garbage collection for a repository. Panics if a segment is missing that a manifest
    /// names.
    pub(super) fn collect(&self, repo: &str) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.network.namespace(1)])
            .arg(binary("cachewfsd"))
            .args(["collect", "--config"])
            .arg(self.directory.join("replica-1/cachewfsd.toml"))
            .arg(repo)
            .output()
            .unwrap();
        // Its exit code doesn't count: a replica may run garbage collection at the same time.
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(!report.contains("DAMAGED"), "{report}");
    }

    pub(super) fn kill(&self, replica: usize) {
        self.replicas[replica].process.lock().unwrap().kill();
    }

    pub(super) fn restart(&self, replica: usize) {
        self.replicas[replica].process.lock().unwrap().restart();
    }

    /// Removes all data from the disk of a killed replica.
    pub(super) fn empty(&self, replica: usize) {
        // A git process of the killed daemon may still write for a moment.
        wait_until("a killed replica's disk is empty", || {
            let removed = fs::remove_dir_all(self.data(replica));
            removed.is_ok() || !self.data(replica).exists()
        });
    }

    fn data(&self, replica: usize) -> PathBuf {
        self.replicas[replica].disk.path().join("data")
    }

    pub(super) fn take_away(&self, replica: usize, resource: Resource) {
        let host = u8::try_from(replica + 1).unwrap();
        match resource {
            Resource::S3 => self.network.cut(host, self.network.local_address(2)),
            Resource::Upstream => self.network.cut(host, self.network.local_address(3)),
            Resource::DiskSpace => self.replicas[replica].disk.fill(),
        }
    }

    pub(super) fn give_back(&self, replica: usize, resource: Resource) {
        let host = u8::try_from(replica + 1).unwrap();
        match resource {
            Resource::S3 => self.network.reconnect(host, self.network.local_address(2)),
            Resource::Upstream => self.network.reconnect(host, self.network.local_address(3)),
            Resource::DiskSpace => self.replicas[replica].disk.free(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // With SIGKILL: a graceful end would take seconds for each replica, one after the other.
        for replica in 0..REPLICAS {
            let process = &self.replicas[replica].process;
            process
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .kill();
        }
    }
}

/// Returns the configuration of a replica. Intervals and timeouts are seconds, not minutes as by
/// default: so retries, garbage collection and expired leases happen during the test.
fn configure(data: &Path, upstream: &str, (s3, bucket): (&str, &TestBucket)) -> String {
    format!(
        r#"
data_dir = "{}"
fetch_interval = "4s"
[upstreams]
local = "{upstream}"
[git]
clone_timeout = "20s"
fetch_timeout = "10s"
[keep]
snapshots = 4
age = "5s"
grace = "10s"
[mirrors]
retry_max = "3s"
[store]
disk_bytes = 50000000
memory_bytes = 8000000
collect_interval = "4s"
lease_ttl = "4s"
delete_notice = "8s"
[store.s3]
bucket = "{}"
endpoint = "{s3}"
credentials_file = "{}"
timeout = "2s"
"#,
        data.display(),
        bucket.name,
        bucket.credentials.display()
    )
}
