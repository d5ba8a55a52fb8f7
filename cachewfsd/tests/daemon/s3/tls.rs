//! A bucket behind HTTPS with a certificate of a private authority, and keys from the environment.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use cachewfs_daemon::{Config, S3Config};
use cachewfs_tests::s3_bucket;
use reqwest::Client;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::bucket::config;
use crate::support::certificates::{create_authority, create_certificate};
use crate::support::process::{refresh, start_process};
use crate::support::test_daemon::*;

/// Starts a TLS proxy for `server` with the certificate in `directory`. Returns its URL.
async fn with_tls(server: SocketAddr, directory: &Path) -> String {
    let certificate = CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                // A client that doesn't trust the certificate fails the handshake.
                if let Ok(mut client) = acceptor.accept(client).await {
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
            });
        }
    });
    url
}

fn create_certificates(directory: &Path) {
    for authority in ["ours", "another"] {
        create_authority(directory, authority);
    }
    create_certificate(directory, "ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_an_untrusted_certificate_fails_with_advice() {
    let Some(bucket) = s3_bucket() else { return };
    let root = tempfile::tempdir().unwrap();
    create_certificates(root.path());
    let endpoint = with_tls(bucket.address, root.path()).await;

    for authority in [None, Some("another.pem")] {
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: root.path().join("data").into(),
            ..Config::default()
        };
        config.store.s3 = Some(S3Config {
            endpoint: Some(endpoint.clone()),
            ca_file: authority.map(|name| root.path().join(name)),
            ..crate::support::bucket::config(&bucket)
        });

        let Err(error) = cachewfsd::daemon().start(config).await else {
            panic!("the daemon started with {authority:?}");
        };

        let error = format!("{:#}", anyhow::Error::from(error));
        let expected = "`ca_file` in [store.s3]";
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_uses_a_private_authority_and_keys_from_its_environment() {
    let Some(bucket) = s3_bucket() else { return };
    // Only the upstream of this daemon is used. The tested daemon is a process of its own.
    let daemon = TestDaemon::start().await;
    let commit = commit_and_push(&daemon.create_upstream(), "one");
    let root = tempfile::tempdir().unwrap();
    create_certificates(root.path());
    let endpoint = with_tls(bucket.address, root.path()).await;
    let text = format!(
        "[upstreams]\n'git.example.com' = 'file://{}'\n\
         [store.s3]\nbucket = '{}'\nendpoint = '{endpoint}'\nca_file = '{}'\n",
        daemon.root.path().join("upstream").display(),
        config(&bucket).bucket,
        root.path().join("ours.pem").display(),
    );
    let variables = [
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "a secret of the tests"),
    ];

    let process = start_process(root.path(), &text, &variables);
    refresh(&process).await;
    let served = process.url() + &stable();
    let served = Client::new().get(served).send().await.unwrap();

    assert_eq!(header(&served, "x-cachew-snapshot-commit"), commit);
    let manifest = format!("v1/{REPO}.git/snapshots/{commit}");
    let answer = bucket.ask("GET", &manifest);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!process.log().contains(variables[1].1), "{}", process.log());
}
