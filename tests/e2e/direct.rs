//! Direct reads: the daemon redirects a mount to the bucket, and the mount reads there.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, Dice, Fault, GitRepo, MountProcess, Proxy, RecordingProxy, Site, TestBucket,
    binary, can_mount, free_address, git, s3_bucket, said, wait_until, write_file,
};

use crate::restore::{assert_success, restore};

/// A part of every signed URL. No log may contain it.
const SECRET: &str = "X-Amz-Signature";

/// A daemon that keeps no copies of its bucket on disk or in memory, and a repository of a few MB.
struct Setup {
    // Fields are dropped in this order: the daemon ends before its directory is removed.
    daemon: DaemonProcess,
    repo: GitRepo,
    site: Site,
}

impl Setup {
    /// Starts the daemon. It redirects mounts to `public`, a URL of the bucket or of a proxy in
    /// front of it.
    fn start(bucket: &TestBucket, public: &str, more: &str) -> Self {
        let site = Site::default();
        let mut repo = site.repo("project");
        repo.add_history(20);
        repo.write("noise", &Dice::new(1).noise(3_000_000));
        repo.commit("noise");
        repo.push();
        let tables = format!(
            "[store]\ndisk_bytes = 0\nmemory_bytes = 0\n[store.s3]\nbucket = \"{}\"\n\
             endpoint = \"{}\"\ncredentials_file = \"{}\"\ndirect_reads = true\n\
             public_endpoint = \"{public}\"\n{more}",
            bucket.name,
            bucket.endpoint,
            bucket.credentials.display()
        );
        let daemon = site.daemon_with_tables(&tables);
        Self { daemon, repo, site }
    }

    fn mount(&self, url: &str, options: &str) -> MountProcess {
        let options = format!("hydrate=off,poll_interval=1h,{options}");
        let mount = self.site.mount_with_options(url, &options);
        wait_until("the repository shows", || {
            mount.repo("local/project").join(".git").exists()
        });
        mount
    }

    /// Reads the history and a large file in the mount, and compares them with the working copy.
    fn read_all(&self, mount: &MountProcess) {
        let mounted = mount.repo("local/project");
        let log = ["log", "-p", "--binary", "--format=%H"];
        assert!(git(&mounted, &log) == git(&self.repo.work, &log));
        let file = std::fs::read(mounted.join("noise")).unwrap();
        assert!(file == std::fs::read(self.repo.work.join("noise")).unwrap());
    }

    fn assert_logs_have_no_url(&self, mount: &MountProcess) {
        for (process, log) in [("daemon", self.daemon.log()), ("mount", mount.log())] {
            let line = log.lines().find(|line| line.contains(SECRET));
            assert_eq!(line, None, "in the log of the {process}");
        }
    }
}

#[test]
fn direct_reads_go_to_the_bucket_and_never_show_the_token() {
    if !can_mount() {
        return;
    }
    let Some(bucket) = s3_bucket() else { return };
    let to_bucket = RecordingProxy::start(bucket.address);
    let path = tempfile::tempdir().unwrap();
    let (auth, token) = team_only(path.path());
    let setup = Setup::start(&bucket, &to_bucket.url(), &auth);
    let to_daemon = RecordingProxy::start(setup.daemon.address());
    let options = format!("token_file={}", path.path().join("token").display());
    let mount = setup.mount(&to_daemon.url(), &options);

    setup.read_all(&mount);

    let requests = to_bucket.requests();
    assert!(requests.len() > 1);
    assert_eq!(to_bucket.count_answers(206), requests.len());
    assert_eq!(to_daemon.count_answers(307), requests.len());
    assert!(to_bucket.answer_bytes() > 3_000_000);
    assert!(to_daemon.answer_bytes() < 1_000_000);
    assert!(mount.traffic("direct_bytes") > 3_000_000);
    assert_eq!(mount.traffic("retries"), 0);
    for request in &requests {
        assert!(request.contains("\r\nrange: bytes="), "{request}");
        for header in ["authorization", "cookie", "referer", "x-cachew"] {
            assert!(!request.contains(&format!("\r\n{header}")), "{request}");
        }
        assert!(!request.contains(&token));
    }
    let shown = |request: &String| request.contains(&token);
    assert!(to_daemon.requests().iter().any(shown));
    setup.assert_logs_have_no_url(&mount);

    // A client without the header gets the bytes from the daemon. A client without a token gets
    // nothing.
    let url = format!("{}/git/local/project/snapshot.tar.zst", setup.daemon.url());
    assert_eq!(curl(&["-r", "0-99", &url]), "401");
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(curl(&["-H", &bearer, "-r", "0-99", &url]), "206");
    let head = git(&setup.repo.work, &["rev-parse", "HEAD"]);
    let url = format!(
        "{}/git/local/project/snapshot/{}.tar.zst",
        setup.daemon.url(),
        head.trim()
    );
    assert_eq!(curl(&["-H", &bearer, "-r", "0-99", &url]), "206");
    let direct = "x-cachewfs-direct: 1";
    assert_eq!(
        curl(&["-H", &bearer, "-H", direct, "-r", "0-99", &url]),
        "307"
    );
    assert_eq!(curl(&["-H", direct, "-r", "0-99", &url]), "401");
}

#[test]
fn a_restore_reads_from_the_bucket() {
    let Some(bucket) = s3_bucket() else { return };
    let to_bucket = RecordingProxy::start(bucket.address);
    let setup = Setup::start(&bucket, &to_bucket.url(), "");
    let to_daemon = RecordingProxy::start(setup.daemon.address());
    let target = setup.site.path().join("restored");

    let output = restore(&to_daemon.url(), &target, &["--json"]);

    assert_success(&output);
    assert!(to_bucket.answer_bytes() > 3_000_000);
    assert!(to_daemon.answer_bytes() < 1_000_000);
    let requests = to_bucket.requests();
    assert_eq!(to_bucket.count_answers(206), requests.len());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["traffic"]["direct_bytes"].as_u64() > Some(3_000_000));
    let log = ["log", "-p", "--binary", "--format=%H"];
    assert!(git(&target, &log) == git(&setup.repo.work, &log));
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
    let log = setup.daemon.log();
    assert!(!log.contains(SECRET) && !said(&output).contains(SECRET));
}

/// Runs curl, and returns the status of the answer.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).to_lowercase()
}

/// Returns an `[auth]` table that admits only the group `team`, and the token of a member of it.
/// The token is also in the file `token`. It is in lower case, as the recorded requests are.
fn team_only(directory: &std::path::Path) -> (String, String) {
    const TOKEN: &str = "cwfs_0123456789abcdefghijklmnopqrstuvwxyz0123456";
    const POLICY: &str = "package cachewfs\nimport rego.v1\ndefault allow := false\n\
                          allow if \"team\" in input.groups\n";
    let mut command = Command::new(binary("cachewfsd"));
    command.args(["hash-token", "alice", "--group", "team"]);
    let mut hash = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(hash.stdin.take().unwrap(), "{TOKEN}").unwrap();
    let hashed = hash.wait_with_output().unwrap();
    assert!(hashed.status.success());
    let write = |name: &str, content: &[u8]| write_file(&directory.join(name), content);
    write("tokens", &hashed.stdout);
    write("policy.rego", POLICY.as_bytes());
    write("token", TOKEN.as_bytes());
    let section = format!(
        "[auth]\ntokens_file = \"{0}/tokens\"\npolicy = \"{0}/policy.rego\"\n",
        directory.display()
    );
    (section, TOKEN.to_owned())
}

#[test]
fn an_unreachable_bucket_delays_a_mount_only_once() {
    if !can_mount() {
        return;
    }
    let Some(bucket) = s3_bucket() else { return };
    let silent = Proxy::start(bucket.address);
    silent.set(Fault::Stall);
    let refusing: SocketAddr = free_address();
    for public in [format!("http://{refusing}"), silent.url()] {
        let setup = Setup::start(&bucket, &public, "");
        let to_daemon = RecordingProxy::start(setup.daemon.address());
        // The bucket may be silent for a quarter of the timeout, so three seconds are left for the
        // daemon.
        let mount = setup.mount(&to_daemon.url(), "read_timeout=4s");

        let began = Instant::now();
        setup.read_all(&mount);

        assert!(began.elapsed() < Duration::from_secs(20), "{public}");
        assert_eq!(mount.traffic("direct_bytes"), 0);
        let tried = to_daemon.count_answers(307);
        assert!((1..10).contains(&tried), "{tried} with {public}");
        let warnings = mount.log().matches("all bytes come from").count();
        assert_eq!(warnings, 1, "{}", mount.log());
        setup.assert_logs_have_no_url(&mount);
    }
}

#[test]
fn an_expired_signature_delays_a_mount_only_once() {
    if !can_mount() {
        return;
    }
    let Some(bucket) = s3_bucket() else { return };
    let to_bucket = RecordingProxy::start(bucket.address);
    // Longer than the URL is valid.
    to_bucket.delay_requests(Duration::from_millis(2100));
    let setup = Setup::start(&bucket, &to_bucket.url(), "direct_reads_ttl = \"1s\"\n");
    let mount = setup.mount(&setup.daemon.url(), "");

    setup.read_all(&mount);

    assert!(to_bucket.count_answers(403) >= 1);
    assert_eq!(to_bucket.count_answers(206), 0);
    assert!(mount.log().contains("answered 403"), "{}", mount.log());
    setup.assert_logs_have_no_url(&mount);
}

#[test]
fn corrupt_or_cut_direct_reads_are_repeated_through_the_daemon() {
    if !can_mount() {
        return;
    }
    let Some(bucket) = s3_bucket() else { return };
    for (fault, said) in [
        (Fault::CorruptEvery(100_000), "Received wrong bytes"),
        (Fault::CutAfter(20_000), "the connection to"),
    ] {
        let spoiling = Proxy::start(bucket.address);
        spoiling.set(fault);
        let setup = Setup::start(&bucket, &spoiling.url(), "");
        let mount = setup.mount(&setup.daemon.url(), "");

        setup.read_all(&mount);

        assert!(mount.traffic("retries") >= 1, "{fault:?}");
        let log = mount.log();
        assert!(log.contains("all bytes come from"), "{log}");
        assert!(log.contains(said), "{log}");
        setup.assert_logs_have_no_url(&mount);
    }
}

#[test]
fn a_mount_with_no_direct_reads_never_asks_the_bucket() {
    if !can_mount() {
        return;
    }
    let Some(bucket) = s3_bucket() else { return };
    let to_bucket = RecordingProxy::start(bucket.address);
    let setup = Setup::start(&bucket, &to_bucket.url(), "");
    let mount = setup.mount(&setup.daemon.url(), "no_direct_reads");

    setup.read_all(&mount);

    assert_eq!(to_bucket.requests(), Vec::<String>::new());
}
