//! Errors of the CLI as a person sees them, its manual pages and its shell completions.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use cachewfs_tests::{DaemonProcess, MountProcess, Site, can_mount, free_address, run, said};

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

/// Returns what `cachewfs` prints with these arguments. Panics if it fails.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the names of all commands, as the help text lists them.
fn commands() -> Vec<String> {
    let help = printed(&["help"]);
    let (_, section) = help.split_once("Commands:\n").unwrap();
    let lines = section.lines().take_while(|line| !line.is_empty());
    // A longer description goes on in a line with more spaces.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split_once(' '));
    let names = names.map(|(name, _)| name);
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_manual_pages_and_completions_have_the_same_commands_and_options() {
    let site = Site::default();
    printed(&["man", site.path().to_str().unwrap()]);
    let page = |name: &str| fs::read_to_string(site.path().join(name)).unwrap();
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let scripts = ["bash", "zsh", "fish"].map(|shell| printed(&["completions", shell]));

    for command in &commands {
        let help = printed(&["help", command]);
        let page = page(&format!("cachewfs-{command}.1")).replace('\\', "");
        for script in &scripts {
            assert!(script.contains(command), "{command}");
        }
        let options = help.lines().map(str::trim_start);
        for line in options.filter(|line| line.starts_with('-')) {
            let option = line
                .split([' ', ',', '='])
                .find(|word| word.starts_with("--"));
            let Some(option) = option.map(|option| option.trim_matches(['[', ']'])) else {
                continue;
            };
            assert!(page.contains(option), "{command} {option}: {page}");
            for script in &scripts {
                // fish writes options without dashes.
                let name = option.trim_start_matches('-');
                assert!(script.contains(name), "{command} {option}");
            }
        }
    }
    assert!(page("mount.cachewfs.8").contains("fstab"));
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
        let next_step = "  `cachewfs doctor` says at which step it fails\n";
        let expected = format!("cachewfs: {reason}\n{next_step}");
        assert_eq!(said, expected, "{arguments:?}");
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
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    // On a machine without authorities, HTTPS says what to install, and plain HTTP works.
    let without = [
        "env",
        "SSL_CERT_FILE=/nonexistent",
        "SSL_CERT_DIR=/nonexistent",
    ];
    let mount_without = |name: &str, url: &str| {
        let directory = site.path().join(name);
        MountProcess::start_within(&without, &directory, (url, "hydrate=off"))
    };
    let mount = mount_without("https", &format!("https://{}", with_tls.address()));
    let said = complaint(&mount, &["pin", "local/project"]);
    assert!(
        said.contains("install the package ca-certificates"),
        "{said}"
    );
    site.repo_with_history("project");
    let directory = site.path().join("daemon-without");
    fs::create_dir_all(&directory).unwrap();
    let config = format!(
        "data_dir = \"{}\"\n[upstreams]\nlocal = \"file://{}\"\n",
        directory.join("data").display(),
        site.upstreams().display()
    );
    let daemon = DaemonProcess::launch(&directory, (&without, free_address()), &config);
    mount_without("http", &daemon.url()).cli(&["refresh", "local/project"]);
}
