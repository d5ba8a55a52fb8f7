//! Errors of the CLI as a person sees them, and its shell completions.

use std::net::TcpListener;
use std::process::Command;

use cachewfs_tests::{DaemonProcess, MountProcess, Site, can_mount, run};

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn errors_have_a_code_and_say_what_to_do() {
    let nowhere = ["--mount", "/nonexistent"];

    let (code, said) = failure(&["clone", "https://github.com"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("github.com/org/repo"), "{said}");

    let (code, said) = failure(&[&["status"][..], &nowhere].concat());
    assert_eq!(code, Some(3), "{said}");

    for url in ["ftp://h", "h:8080"] {
        let (code, said) = failure(&["mount", url, "/mnt"]);
        assert_eq!(code, Some(2), "{said}");
        let expected = "is not the URL of a daemon: it must start with http:// or https://\n";
        assert!(said.contains(&format!("{url:?} {expected}")), "{said}");
        assert!(said.contains("cachewfs mount http://HOST:8080"), "{said}");
    }

    for (arguments, expected) in [
        (&["/mnt"][..], "the URL of the daemon is missing"),
        (&["http://h"], "the mount point is missing"),
        (&["--local", "/d", "http://h", "/mnt"], "leave out the URL"),
    ] {
        let (code, said) = failure(&[&["mount"], arguments].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }

    for path in ["file:///srv/x", "/srv/x", "../x"] {
        let (code, said) = failure(&["clone", path]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("is a path of this machine"), "{said}");
        assert!(said.contains("`git clone`"), "{said}");
    }
}

#[test]
fn credentials_are_not_printed() {
    for arguments in [
        ["pin", "https://user:hunter2@github.com"],
        ["clone", "https://hunter2@github.com/.."],
    ] {
        let (_, said) = failure(&arguments);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn completions_are_a_script() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(script.contains("prefetch"), "{shell}");
    }
}

/// Runs a command that asks the only mount. Returns what it says on standard error.
fn complaint(mount: &MountProcess, arguments: &[&str]) -> String {
    let point = mount.point.display().to_string();
    let (code, said) = failure(&[arguments, &["--mount", &point]].concat());
    assert_eq!(code, Some(1), "{said}");
    said
}

#[test]
fn a_daemon_that_is_away_is_named_with_the_reason_and_once() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let reason = format!("can't reach the daemon {url}: Connection refused (os error 111)");

    let mount = site.mount(&url);

    let warning = format!("cachewfs: mounted, but {reason}. The mount shows what its cache has");
    assert!(mount.log().contains(&warning), "{}", mount.log());
    let target = site.path().join("clone").display().to_string();
    for arguments in [
        &["clone", "local/project", &target][..],
        &["refresh", "local/project"],
        &["pin", "local/project"],
    ] {
        let said = complaint(&mount, arguments);
        assert_eq!(said, format!("cachewfs: {reason}\n"), "{arguments:?}");
    }
    let unpinned = complaint(&mount, &["unpin", "local/project"]);
    assert_eq!(unpinned, "cachewfs: local/project is not pinned\n");
}

#[test]
fn a_wrong_scheme_and_an_unknown_authority_are_said() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| site.path().join(name));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=x",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let table = format!(
        "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let with_tls = site.daemon_with_tables(&table);
    let plain = DaemonProcess::start(&site.path().join("plain"), &site.upstreams());

    for (scheme, daemon, expected) in [
        ("https", &with_tls, "SSL_CERT_FILE=FILE"),
        ("http", &with_tls, "try https:// instead of http://"),
        ("https", &plain, "try http:// instead of https://"),
    ] {
        let mount = site.mount(&format!("{scheme}://{}", daemon.address()));
        let said = complaint(&mount, &["pin", "local/project"]);
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
