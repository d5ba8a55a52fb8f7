//! Runs `cachewfsd` as a process for one test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use cachewfs_tests::DaemonProcess;
use reqwest::Client;

use super::test_daemon::{REPO, until};

/// Starts a daemon in `directory`, with its data directory `data`, the keys of `config` and these
/// environment variables.
pub(crate) fn start_process(
    directory: &Path,
    config: &str,
    variables: &[(&str, &str)],
) -> DaemonProcess {
    // The log of an earlier process has another address.
    fs::remove_file(directory.join("log")).ok();
    let variables = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let variables: Vec<String> = variables.collect();
    let mut wrapper: Vec<&str> = variables.iter().map(String::as_str).collect();
    if !wrapper.is_empty() {
        wrapper.insert(0, "env");
    }
    let text = format!(
        "data_dir = '{}'\n{config}",
        directory.join("data").display()
    );
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    DaemonProcess::launch(directory, (&wrapper, any_port), &text)
}

/// Requests an update and a publish until one succeeds, because the store may need some time.
pub(crate) async fn refresh(process: &DaemonProcess) {
    let url = format!("{}/git/{REPO}/refresh", process.url());
    until(async || {
        let answer = Client::new().post(&url).send().await.unwrap();
        let is_success = answer.status().is_success();
        is_success.then_some(()).ok_or_else(|| process.log())
    })
    .await;
}
