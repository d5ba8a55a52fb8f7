//! Certificates of authorities that only a test trusts.

use std::path::Path;
use std::process::Command;

use super::test_daemon::write_file;

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";

/// Creates a certificate authority in `<name>.pem`.
pub(crate) fn create_authority(directory: &Path, name: &str) {
    let names = format!("-keyout {name}.key -out {name}.pem -subj /CN={name}");
    openssl(directory, &format!("req -x509 {KEY} {names}"));
}

/// Creates a certificate for this machine in `cert.pem`, and its key in `key.pem`.
pub(crate) fn create_certificate(directory: &Path, authority: &str) {
    write_file(&directory.join("ext"), "subjectAltName=IP:127.0.0.1\n");
    let request = "-keyout leaf.key -out request.pem -subj /CN=daemon";
    openssl(
        directory,
        &format!("req {KEY} {request}").replace(" -days 2", ""),
    );
    let sign = format!("-CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2");
    openssl(
        directory,
        &format!("x509 -req -in request.pem {sign} -extfile ext -out cert.pem"),
    );
    std::fs::rename(directory.join("leaf.key"), directory.join("key.pem")).unwrap();
}
