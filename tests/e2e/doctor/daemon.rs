//! Each step on the way to a daemon fails once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cachewfs_tests::{Site, can_mount, free_address, wait_until, write_file};

use super::{Findings, Machine, doctor};
use crate::tokens::restricted_daemon;

/// The steps in their order.
const STEPS: [&str; 7] = [
    "daemon name",
    "daemon route",
    "daemon connection",
    "clock",
    "daemon TLS",
    "daemon HTTP",
    "daemon token",
];

/// Panics unless the step fails with `text` in its reason, and all later ones are skipped.
fn assert_fails_at(found: &Findings, step: &str, text: &str) {
    found.assert(step, "wrong", text);
    assert_eq!(found.code, Some(1));
    let later = STEPS.iter().skip_while(|name| **name != step).skip(1);
    for name in later {
        assert_eq!(found.outcome(name), "skipped", "{found:?}");
    }
}

/// Answers each request with `answer`, until the test process ends.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A connection without a request is the check of the step before.
            if stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
    url
}

#[test]
fn no_address_no_route_and_no_listener_are_told_apart() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut machine = Machine::new(&site).with_etc(&[("resolv.conf", ""), ("hosts", "")]);
    let nameless = machine.doctor(&["http://daemon.test:8080"]);
    assert_fails_at(
        &nameless,
        "daemon name",
        "the name daemon.test has no address",
    );

    let mut machine = Machine::new(&site).without_network();
    let cut_off = machine.doctor(&["http://192.0.2.1:8080"]);
    assert_eq!(cut_off.outcome("daemon name"), "ok");
    assert_fails_at(
        &cut_off,
        "daemon route",
        "this machine knows no route to 192.0.2.1",
    );

    let refused = doctor(&site, &[&format!("http://{}", free_address())]);
    assert_eq!(refused.outcome("daemon route"), "ok");
    assert_fails_at(&refused, "daemon connection", "refuses connections");
}

#[test]
fn a_captive_portal_and_a_proxy_are_no_daemon() {
    let site = Site::default();
    let page = serve(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: 13\r\n\
         connection: close\r\n\r\n<html></html>",
    );
    let found = doctor(&site, &[&page]);
    assert_fails_at(
        &found,
        "daemon HTTP",
        "a proxy or captive portal answers with a web page",
    );
    let redirect = serve(
        "HTTP/1.1 302 Found\r\nlocation: http://login.test/?next=secret\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n",
    );
    let found = doctor(&site, &[&redirect]);
    assert_fails_at(
        &found,
        "daemon HTTP",
        "redirects to http://login.test (302 Found)",
    );

    let proxy = format!("http://{}", free_address());
    let found = Machine::new(&site)
        .env("http_proxy", &proxy)
        .doctor(&["http://192.0.2.1:1"]);
    found.assert(
        "daemon connection",
        "skipped",
        "requests go through the proxy in http_proxy",
    );
    assert_fails_at(
        &found,
        "daemon HTTP",
        "no answer through the proxy in http_proxy",
    );
}

#[test]
fn a_wrong_clock_is_found_also_behind_a_certificate() {
    const ANSWER: &str = "HTTP/1.0 200 OK\r\ndate: Wed, 01 Jan 2020 00:00:00 GMT\r\n\
        content-type: application/json\r\ncontent-length: 12\r\nconnection: close\r\n\r\n\
        {\"hosts\":[]}";
    let site = Site::default();

    let found = doctor(&site, &[&serve(ANSWER)]);
    found.assert(
        "clock",
        "wrong",
        "minutes ahead of the daemon's (Wed, 01 Jan 2020",
    );
    assert_eq!(found.wrong(), ["clock"], "{found:?}");

    let authority = expired_certificate(&site);
    write_file(&site.path().join("api/v1/repos"), ANSWER);
    let server = TlsServer::start(site.path());
    let ask = || {
        Machine::new(&site)
            .env("SSL_CERT_FILE", &authority.display().to_string())
            .doctor(&[&format!("https://{}", server.address)])
    };
    let found = ask();
    found.assert("daemon TLS", "skipped", "with a wrong clock");
    assert_eq!(found.wrong(), ["clock"], "{found:?}");

    // Without a date, the certificate is all that is known.
    write_file(
        &site.path().join("api/v1/repos"),
        ANSWER.replace("date: ", "x: "),
    );
    assert_fails_at(&ask(), "daemon TLS", "expired");
}

/// A server that answers with files, over TLS. Dropping it ends it.
struct TlsServer {
    process: Child,
    address: SocketAddr,
}

impl TlsServer {
    fn start(directory: &Path) -> Self {
        let address = free_address();
        let process = Command::new("openssl")
            .args(["s_server", "-HTTP", "-accept", &address.to_string()])
            .args(["-cert", "cert.pem", "-key", "key.pem"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the server listens", || TcpStream::connect(address).is_ok());
        Self { process, address }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Makes a certificate for 127.0.0.1 that expired in 2021. Returns the file with its authority.
fn expired_certificate(site: &Site) -> PathBuf {
    let directory = site.path();
    let shown = directory.display();
    write_file(&directory.join("index.txt"), "");
    write_file(&directory.join("serial"), "01\n");
    write_file(
        &directory.join("ca.cnf"),
        format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={shown}/index.txt\nnew_certs_dir={shown}\n\
             serial={shown}/serial\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n\
             [ext]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
        ),
    );
    let run = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        let output = openssl
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!(
        "req -x509 {key} -days 2 -subj /CN=ca -out ca.pem -keyout ca.key"
    ));
    run(&format!(
        "req -new {key} -subj /CN=x -out csr.pem -keyout key.pem"
    ));
    run(
        "ca -batch -notext -config ca.cnf -in csr.pem -out cert.pem -cert ca.pem -keyfile ca.key \
         -extensions ext -startdate 20200101000000Z -enddate 20210101000000Z",
    );
    directory.join("ca.pem")
}

#[test]
fn a_token_that_is_missing_wrong_or_unreadable_is_told_apart() {
    let site = Site::default();
    let (daemon, _) = restricted_daemon(&site);
    let ask = |file: Option<&str>| {
        let url = daemon.url();
        let file = file.map(|name| site.path().join(name).display().to_string());
        let mut arguments = vec![url.as_str()];
        if let Some(file) = &file {
            arguments.extend(["--token-file", file]);
        }
        doctor(&site, &arguments)
    };

    let without = ask(None);
    assert_eq!(without.outcome("daemon HTTP"), "ok", "{without:?}");
    assert_fails_at(&without, "daemon token", "(unauthenticated)");
    let remedy = without.of("daemon token")["remedy"].as_str().unwrap();
    assert!(remedy.contains("--token-file FILE"), "{remedy}");

    write_file(&site.path().join("wrong"), "cwfs_wrong\n");
    assert_fails_at(&ask(Some("wrong")), "daemon token", "(unauthenticated)");
    assert_fails_at(&ask(Some("none")), "daemon token", "can't be read");
    let right = ask(Some("token"));
    assert_eq!(right.outcome("daemon token"), "ok", "{right:?}");
    assert!(fs::exists(site.path().join("token")).unwrap());
}
