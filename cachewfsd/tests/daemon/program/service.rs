//! `cachewfsd` as systemd and an operator use it: signals, logs, reloads, `check-config`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cachewfs_tests::wait_up_to;
use serde_json::Value;

use crate::support::systemd_daemon::*;
use crate::support::test_daemon::write_file;

/// Tries to start the daemon with only the programs in `directory` on `PATH`. Returns its stderr.
fn start_with_programs(directory: &Path) -> String {
    let root = tempfile::tempdir().unwrap();
    write_config(root.path(), "");
    let mut command = cachewfsd();
    command.arg("--config").arg(root.path().join("config"));
    let output = command.env("PATH", directory).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_missing_or_too_old_git_stops_the_start_with_advice() {
    let programs = tempfile::tempdir().unwrap();
    let said = start_with_programs(programs.path());
    assert!(said.contains("install git 2.39 or later"), "{said}");

    let old = programs.path().join("git");
    write_file(&old, "#!/bin/sh\necho git version 2.38.1\n");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let said = start_with_programs(programs.path());
    assert!(said.contains("git version 2.38.1 is too old"), "{said}");
}

#[test]
fn check_config_says_what_is_wrong_and_where() {
    let output = check_config("# x\nfetch_intervall = '2m'\n", &[]);

    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for part in [
        "cachewfsd.toml, line 2",
        "no key fetch_intervall",
        "did you mean fetch_interval?",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn check_config_reports_errors_that_would_stop_the_start() {
    for (config, wrong) in [
        (
            "[tls]\ncertificate = '/no/cert.pem'\nkey = '/no/key.pem'",
            "/no/cert.pem",
        ),
        ("[auth]\npolicy = '/no/policy.rego'", "/no/policy.rego"),
        ("[auth]\ntokens_file = '/no/tokens'", "/no/tokens"),
        (
            "[upstream_auth.'x.org']\ntoken_env = 'X'",
            "names a host that [upstreams] doesn't have",
        ),
        (
            "[store.s3]\nbucket = 'bucket'\nca_file = '/no/ca.pem'",
            "/no/ca.pem",
        ),
        (
            "[store.s3]\nbucket = 'bucket'\nca_file = '/dev/null'",
            "it has no certificates",
        ),
        ("[store]\ndirectory = '/dev/null'", "/dev/null"),
    ] {
        let output = check_config(config, &[]);

        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(error.contains(wrong), "no {wrong:?} in {error}");
    }
    // Only a warning: the file may exist on the machine of the daemon.
    let config = "[upstream_auth.'github.com']\ntoken_file = '/no/token'";
    let output = check_config(config, &[]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warning.contains("token file /no/token"));
    let config = "[store.s3]\nbucket = 'bucket'\ncredentials_file = '/no/credentials'";
    let output = check_config(config, &[]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{warning}");
    assert!(
        warning.starts_with("Warning: can't use the store"),
        "{warning}"
    );
    assert!(warning.contains("/no/credentials"), "{warning}");
}

#[test]
fn check_config_shows_the_effective_configuration_without_secrets() {
    let config = "fetch_interval = '2m'\n[upstreams]\n\
                  'git.example.com' = 'https://me:s3cret@x.org'\n\
                  'github.com' = 'https://github.com'";
    let token = [("CACHEWFSD_UPSTREAM_GITHUB_COM_TOKEN", "t0ken")];

    let output = check_config(config, &token);

    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    for part in [
        "fetch_interval = \"2m\"",
        "keep_snapshots = 20",
        "\"git.example.com\" = \"https://***@x.org\"",
        "\"github.com\" = \"https://***@github.com\"",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let all = format!("{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains("s3cret") && !all.contains("t0ken"), "{all}");
}

/// Requests a clone from an upstream without a listener, and checks that neither the responses nor
/// the log contain secrets. Returns the log, at level trace.
fn log_of_a_failing_clone(arguments: &[&str]) -> String {
    // A URL with credentials. Nothing listens at its port.
    let unused = socket_without_listener();
    let config = format!("[upstreams]\n'git.example.com' = 'http://me:s3cret@{unused}'\n");
    let program = SystemdDaemon::start(&config, arguments);
    let repo = "git.example.com/org/repo";

    let (status, answer) = program.refresh(repo);
    let refs = program.get(&format!("/git/{repo}/info/refs?service=git-upload-pack"));
    let passed_on = program.get(&format!("/git/{repo}/info/lfs/locks?token=s3cret"));
    let seen = [
        answer,
        refs.1,
        passed_on.1,
        program.get("/metrics").1,
        program.get("/api/v1/repos").1,
    ];

    assert_eq!(status, 502);
    program.wait_for_log("Updating or publishing git.example.com/org/repo failed");
    let log = program.log();
    // "me:s3cret" in base64.
    for secret in ["s3cret", "bWU6czNjcmV0"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!seen.iter().any(|text| text.contains(secret)), "{seen:?}");
    }
    program.end();
    log
}

#[test]
fn a_log_for_people_has_no_secrets() {
    let log = log_of_a_failing_clone(&[]);

    assert!(log.contains("request_id="), "{log}");
}

#[test]
fn a_log_for_programs_is_json_without_secrets() {
    let log = log_of_a_failing_clone(&["--log", "json"]);

    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let failed = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert_eq!(failed["repo"], "git.example.com/org/repo");
    assert!(failed["error"].as_str().unwrap().contains("upstream"));
    assert!(
        lines
            .iter()
            .any(|line| line["span"]["request_id"].is_string())
    );
}

#[test]
fn a_reload_adds_and_removes_upstreams_and_a_bad_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (base, _) = upstream(directory.path(), "one");
    let program = SystemdDaemon::start("[upstreams]\n'a.org' = 'https://127.0.0.1:1'", &[]);
    assert_eq!(program.refresh("b.org/org/repo").0, 404);

    program.reload(&format!("publishes = 7\n[upstreams]\n'b.org' = '{base}'"));

    assert_eq!(program.refresh("b.org/org/repo").0, 200);
    assert!(program.refresh("a.org/x").1.contains("unknown_host"));
    program.wait_for_log("publishes keeps its old value until a restart");

    program.reload("keep_snapshots = 0");

    program.wait_for_log("Can't use the new configuration");
    assert!(program.log().contains("line 3: keep_snapshots"));
    assert_eq!(program.refresh("b.org/org/repo").0, 200);

    program.reload("[upstreams]\n'a.org' = 'https://127.0.0.1:1'");

    program.wait_for_log("Stopped mirroring b.org/org/repo");
    assert!(program.refresh("b.org/org/repo").1.contains("unknown_host"));
    program.end();
}

#[test]
fn a_reload_moves_an_upstream_and_its_interval() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (old, first) = upstream(directories[0].path(), "old");
    let (new, second) = upstream(directories[1].path(), "new");
    let repo = "a.org/org/repo";
    let config = |base: &str, interval: &str| {
        format!("fetch_interval = '{interval}'\n[upstreams]\n'a.org' = '{base}'")
    };
    let program = SystemdDaemon::start(&config(&old, "1h"), &[]);
    assert!(program.refresh(repo).1.contains(&first));

    program.reload(&config(&new, "1s"));

    // Nobody requests an update: the reload moved the next run from in an hour to in a second.
    program.wait_for_log(&format!("Published {second} of {repo}"));
    program.end();
}

#[test]
fn a_stopping_daemon_is_not_ready_but_answers_during_drain_delay() {
    let program = SystemdDaemon::start("drain_delay = '1h'", &[]);
    assert_eq!(program.get("/readyz").0, 200);

    program.signal("TERM");
    program.expect_systemd("STOPPING=1");

    wait_up_to(TEST_TIMEOUT, "the daemon is not ready", || {
        program.get("/readyz").0 == 503
    });
    assert_eq!(program.get("/readyz").1, "stopping\n");
    assert_eq!(program.get("/healthz").0, 200);
    assert_eq!(program.get("/api/v1/repos").0, 200);
}
