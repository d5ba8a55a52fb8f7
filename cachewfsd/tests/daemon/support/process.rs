//! Runs `cachewfsd` as a process for one test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::test_daemon::{REPO, eventually, write_file};

/// A process of the daemon. Dropping it kills the process.
pub(crate) struct DaemonProcess {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
    log: PathBuf,
}

impl DaemonProcess {
    /// Starts a daemon with the data directory `name` below `root` and the keys of `config`.
    pub(crate) async fn start(
        root: &Path,
        (name, config): (&str, &str),
        variables: &[(&str, &str)],
    ) -> Self {
        let data = root.join(name);
        let base = format!("listen = '127.0.0.1:0'\ndata_dir = '{}'\n", data.display());
        let file = root.join(format!("{name}.toml"));
        write_file(&file, base + config);
        let log = root.join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_cachewfsd"))
            .arg("--config")
            .arg(file)
            .env_remove("CACHEWFSD_CONFIG")
            .env("RUST_LOG", "info")
            .envs(variables.iter().copied())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let address = || {
            let log = fs::read_to_string(&log).unwrap();
            let rest = log.split_once("Serving http://")?.1;
            let is_end = |letter: char| !letter.is_ascii_digit() && !".:".contains(letter);
            rest.split_once(is_end)
                .map(|(address, _)| address.to_owned())
        };
        eventually(|| address().is_some()).await;
        let address = address().unwrap();
        Self {
            child,
            address,
            log,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests an update and a publish until one succeeds, because the store may need some time.
    pub(crate) async fn refresh(&self) {
        let url = self.url(&format!("/git/{REPO}/refresh"));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !Client::new()
            .post(&url)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
        {
            assert!(tokio::time::Instant::now() < deadline, "{}", self.log());
        }
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    /// Waits until the process has exited.
    pub(crate) async fn end(&mut self) {
        let child = std::sync::Mutex::new(&mut self.child);
        eventually(|| child.lock().unwrap().try_wait().unwrap().is_some()).await;
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
