//! `cachewfsd` as a process that systemd has started.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use cachewfs_tests::{binary, served_address, wait_up_to};
use reqwest::{Client, RequestBuilder};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::test_daemon::{commit_and_push, create_upstream, write_file};

/// How long a test waits for a log line or for a message to systemd.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn cachewfsd() -> Command {
    let mut command = Command::new(binary("cachewfsd"));
    command
        .env_remove("CACHEWFSD_CONFIG")
        .env_remove("RUST_LOG");
    command
}

/// A process of the daemon with the notification socket of systemd. Dropping it kills the process.
pub(crate) struct SystemdDaemon {
    root: TempDir,
    pub(crate) child: Child,
    systemd: UnixDatagram,
    pub(crate) client: Client,
    runtime: Runtime,
}

impl SystemdDaemon {
    /// Starts the daemon with the keys of `config`, and waits until it is ready.
    pub(crate) fn start(config: &str, arguments: &[&str]) -> Self {
        Self::start_with(config, arguments, &[])
    }

    /// Like `start`, with environment variables.
    pub(crate) fn start_with(config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("notify");
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        write_config(root.path(), config);
        let child = cachewfsd()
            .arg("--config")
            .arg(root.path().join("config"))
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket)
            .env("RUST_LOG", "trace")
            .envs(variables.iter().copied())
            .stderr(File::create(root.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let client = Client::new();
        let runtime = Runtime::new().unwrap();
        let program = Self {
            root,
            child,
            systemd,
            client,
            runtime,
        };
        program.expect_systemd("READY=1");
        program
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        let what = format!("the log has {text:?}");
        wait_up_to(TEST_TIMEOUT, &what, || self.log().contains(text));
    }

    pub(crate) fn expect_systemd(&self, state: &str) {
        let mut message = [0; 4096];
        let len = self.systemd.recv(&mut message).unwrap();
        let message = String::from_utf8_lossy(&message[..len]);
        assert!(message.lines().any(|line| line == state), "{message}");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let address = served_address(&self.log()).unwrap();
        format!("http://{address}{path}")
    }

    /// Sends a request. Returns the status and the body of the response.
    pub(crate) fn send(&self, request: RequestBuilder) -> (u16, String) {
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.send(self.client.get(self.url(path)))
    }

    pub(crate) fn refresh(&self, repo: &str) -> (u16, String) {
        let url = self.url(&format!("/git/{repo}/refresh"));
        self.send(self.client.post(url))
    }

    /// Makes the daemon reload `config`, and waits until it has done so.
    pub(crate) fn reload(&self, config: &str) {
        write_config(self.root.path(), config);
        self.signal("HUP");
        self.expect_systemd("RELOADING=1");
        self.expect_systemd("READY=1");
    }

    pub(crate) fn end(mut self) {
        self.signal("TERM");
        self.expect_systemd("STOPPING=1");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for SystemdDaemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn write_config(root: &Path, config: &str) {
    let data = root.join("data");
    let base = format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n", data.display());
    write_file(&root.join("config"), base + config);
}

pub(crate) fn check_config(config: &str, variables: &[(&str, &str)]) -> Output {
    let root = tempfile::tempdir().unwrap();
    write_file(&root.path().join("cachewfsd.toml"), config);
    let mut command = cachewfsd();
    command.arg("check-config").arg("--config");
    command.arg(root.path().join("cachewfsd.toml"));
    command.envs(variables.iter().copied()).output().unwrap()
}

pub(crate) fn socket_without_listener() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    address.to_string()
}

/// Creates the repository `org/repo` with one commit in `directory`. Returns the URL of the
/// directory and the commit.
pub(crate) fn upstream(directory: &Path, message: &str) -> (String, String) {
    let work = create_upstream(&directory.join("org/repo.git"), directory.join("work"));
    let commit = commit_and_push(&work, message);
    (format!("file://{}", directory.display()), commit)
}
