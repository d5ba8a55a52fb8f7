//! HTTPS: certificates, their renewal, and clients that never finish a handshake.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cachewfs_daemon::TlsConfig;
use reqwest::{Certificate, Client};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::captured_log::CapturedLog;
use crate::support::certificates::{create_authority, create_certificate};
use crate::support::test_daemon::*;

fn client(directory: &Path, authority: &str) -> Client {
    let pem = std::fs::read(directory.join(format!("{authority}.pem"))).unwrap();
    let trusted = Certificate::from_pem(&pem).unwrap();
    // No connection pool, so that each request makes a handshake.
    let builder = Client::builder().pool_max_idle_per_host(0);
    builder.tls_certs_only([trusted]).build().unwrap()
}

async fn start() -> TestDaemon {
    let root = tempfile::tempdir().unwrap();
    for authority in ["old", "new"] {
        create_authority(root.path(), authority);
    }
    create_certificate(root.path(), "old");
    let tls = TlsConfig {
        certificate: root.path().join("cert.pem"),
        key: root.path().join("key.pem"),
    };
    TestDaemon::start_in(root, |config| config.tls = Some(tls)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_the_daemon_runs() {
    let log = CapturedLog::start();
    let daemon = start().await;
    let directory = daemon.root.path();
    let url = format!("https://{}/readyz", daemon.running.address);
    let (old, new) = (client(directory, "old"), client(directory, "new"));

    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);
    assert!(new.get(&url).send().await.unwrap_err().is_connect());
    assert!(
        Client::new()
            .get(daemon.url("/readyz"))
            .send()
            .await
            .is_err()
    );

    // The daemon ignores an invalid key. It checks the files at a handshake.
    write_file(&directory.join("key.pem"), "no key");
    until(async || {
        assert_eq!(old.get(&url).send().await.unwrap().status(), 200);
        let log = log.text();
        let is_read = log.contains("Can't use changed files");
        if is_read { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);
    create_certificate(directory, "new");
    until(async || new.get(&url).send().await).await;
    assert!(old.get(&url).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_over_https_beside_silent_clients() {
    let daemon = start().await;
    let head = commit_and_push(&daemon.create_upstream(), "one");
    let address = daemon.running.address;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let authority = daemon.root.path().join("old.pem");
    let to = daemon.root.path().join("clone");
    let url = format!("https://{address}/git/{REPO}");

    let cloned = Command::new("git")
        .args(["clone", "-q", &url, to.to_str().unwrap()])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_SSL_CAINFO", authority)
        .output()
        .unwrap();

    assert!(cloned.status.success(), "{cloned:?}");
    assert_eq!(git(&to, ["rev-parse", "HEAD"]), head);
    // The daemon closes silent connections after a timeout.
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_secs(30), silent[0].read(&mut byte)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_a_limited_share_of_the_handshakes() {
    let daemon = start().await;
    let mut silent = Vec::new();
    for _ in 0..130 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(daemon.running.address).await.unwrap());
    }

    // The first 128 connections are within the share, and may take 10 s. The others are closed at
    // once.
    for refused in silent.iter_mut().skip(128) {
        let end = tokio::time::timeout(Duration::from_secs(5), refused.read(&mut [0])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    }
    let client = client(daemon.root.path(), "old");
    let url = format!("https://{}/readyz", daemon.running.address);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_certificate_stops_the_start() {
    let root = tempfile::tempdir().unwrap();
    create_authority(root.path(), "old");
    create_certificate(root.path(), "old");
    let start = async |certificate: &str, key: &str| {
        let config = cachewfs_daemon::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.path().join("data").into(),
            tls: Some(TlsConfig {
                certificate: root.path().join(certificate),
                key: root.path().join(key),
            }),
            ..cachewfs_daemon::Config::default()
        };
        let error = cachewfsd::daemon().start(config).await.unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    };

    assert!(start("cert.pem", "old.key").await.contains("cert.pem"));
    assert!(start("cert.pem", "cert.pem").await.contains("cert.pem"));
    assert!(start("ext", "key.pem").await.contains("ext"));
}
