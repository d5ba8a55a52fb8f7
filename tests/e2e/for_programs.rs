//! Programs get what the command line promises them: JSON, exit codes, progress.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use cachewfs_tests::{DaemonProcess, GitHttpServer, Link, Site, can_mount, free_address, git, run};
use serde_json::{Value, json};

use crate::helper::BackgroundMount;

/// Returns the value on standard output.
fn result(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the values in the lines of standard error.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"));
    text.lines().map(parse).collect()
}

/// Returns the names of an object's fields.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(|key| &**key)
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_command_with_a_result_prints_it_as_json() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let head = git(&repo.work, &["rev-parse", "HEAD"]);
    let daemon = site.daemon();
    let point = site.path().join("mnt");
    std::fs::create_dir_all(&point).unwrap();
    let point = point.display().to_string();
    let cache = site.path().join("cache").display().to_string();
    let options = format!("hydrate=off,cache_dir={cache}");
    let url = daemon.url();
    let name = "local/project";
    let of_mount = |arguments: &[&str]| run(&[arguments, &["--json", "--mount", &point]].concat());

    let _unmounted_at_the_end = BackgroundMount(point.clone().into());
    let mounted = result(&run(&["mount", "--json", &url, &point, "-o", &options]));
    assert_eq!(
        mounted,
        json!({
            "version": mounted["version"], "pid": mounted["pid"], "mount_point": point,
            "daemons": [url], "cache_dir": cache, "outage": null,
        })
    );
    let status = result(&of_mount(&["status"]));
    assert_eq!(status["mounts"][0]["pid"], mounted["pid"]);

    let refreshed = result(&of_mount(&["refresh", name]));
    let expected = [
        "commit",
        "default_branch",
        "notice",
        "repo",
        "snapshot",
        "upstream_url",
    ];
    assert_eq!(fields(&refreshed), expected);
    assert_eq!(refreshed["commit"], head.trim());
    let hot = result(&of_mount(&["prefetch", name]));
    assert_eq!((&hot["repo"], &hot["part"]), (&json!(name), &json!("hot")));
    assert_ne!(hot["fetched_bytes"], 0);
    let pinned = result(&of_mount(&["pin", name]));
    assert_eq!(fields(&pinned), ["fetched_bytes", "is_pinned", "repo"]);
    assert_eq!(pinned["is_pinned"], true);
    let again = result(&of_mount(&["pin", name]));
    assert_eq!(again["fetched_bytes"], 0);
    let unpinned = result(&of_mount(&["unpin", name]));
    assert_eq!(unpinned, json!({"repo": name, "is_pinned": false}));
    let prepared = result(&run(&["before-sleep", "--json", &point]));
    assert_eq!(prepared, json!({"mount_points": [point]}));
    let clone = site.path().join("clone").display().to_string();
    let cloned = run(&["clone", name, &clone, "--mount", &point]);
    assert!(cloned.status.success(), "{cloned:?}");

    let unmounted = run(&["umount", "--json", &point]);

    let needy = json!([{"repo": name, "directory": clone}]);
    assert_eq!(
        result(&unmounted),
        json!({"mount_point": point, "clones": needy})
    );
    let said = lines(&unmounted);
    let warning = said[0]["warning"]["message"].as_str().unwrap();
    assert!(warning.starts_with("the clone "), "{warning}");
}

#[test]
fn errors_are_json_with_a_code_and_the_next_step() {
    let no_mount = run(&["refresh", "--json", "h/r", "--mount", "/nonexistent"]);
    assert_eq!(no_mount.status.code(), Some(3));
    assert_eq!(
        lines(&no_mount),
        [json!({"error": {
            "code": "no_mount", "exit_code": 3,
            "message": "no cachewfs mount is at /nonexistent",
            "next_step": "`findmnt -t fuse.cachewfs` lists the mounts",
        }})]
    );
    assert_eq!(no_mount.stdout, b"");

    let no_url = run(&["pin", "--json"]);
    assert_eq!(no_url.status.code(), Some(2));
    let error = &lines(&no_url)[0]["error"];
    assert_eq!(error["code"], "usage");
    let missing = "the following required arguments were not provided: <URL>";
    assert_eq!(error["message"], missing);

    let unknown = run(&["frobnicate", "--json"]);
    assert_eq!(lines(&unknown)[0]["error"]["exit_code"], 2);
}

#[test]
fn the_error_of_a_mount_in_the_background_keeps_its_exit_code_and_next_step() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let [absent, cache] = ["absent", "cache"].map(|name| site.path().join(name));
    let absent = absent.display().to_string();
    let options = format!("cache_dir={}", cache.display());
    let mount = |format: &[&str]| {
        let arguments = ["mount", "http://127.0.0.1:1", &absent, "-o", &options];
        run(&[&arguments, format].concat())
    };
    let next_step = "create the directory first: mkdir MOUNTPOINT";

    let as_json = mount(&["--json"]);
    let as_text = mount(&[]);

    let message =
        format!("can't use the mount point {absent}: No such file or directory (os error 2)");
    let error = json!({"error": {
        "code": "failed", "exit_code": 1, "message": message, "next_step": next_step,
    }});
    assert_eq!(lines(&as_json), [error]);
    let text = String::from_utf8(as_text.stderr).unwrap();
    assert_eq!(text, format!("cachewfs: {message}\n  {next_step}\n"));
    assert!(!Path::new(&absent).exists());
}

#[test]
fn a_first_clone_of_the_daemon_is_told_on_a_pipe_and_not_with_quiet_or_json() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    for name in ["a", "b", "c"] {
        site.repo_of_files(name, (1, 3 << 20));
    }
    let upstream = GitHttpServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST), &site.upstreams());
    let slow = Link::start(upstream.address(), 2 << 20, Duration::ZERO);
    let directory = site.path().join("daemon");
    std::fs::create_dir_all(&directory).unwrap();
    let config = format!(
        "data_dir = \"{}\"\n[upstreams]\nlocal = \"http://{}\"\n",
        directory.join("data").display(),
        slow.address()
    );
    let daemon = DaemonProcess::launch(&directory, (&[], free_address()), &config);
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off");
    let point = mount.point.display().to_string();
    let prefetch = |arguments: &[&str]| {
        let output = run(&[&["prefetch", "--mount", &point], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };

    let said = prefetch(&["local/a"]);
    let quiet = prefetch(&["local/b", "--quiet"]);
    let json = prefetch(&["local/c", "--json"]);

    let lines: Vec<_> = said.lines().collect();
    let [first, last] = lines[..] else {
        panic!("{said}")
    };
    let clones = "cachewfs: the daemon clones local/a";
    assert!(first.starts_with(clones), "{said}");
    assert!(last.starts_with("cachewfs: this took "), "{said}");
    assert_eq!((&*quiet, &*json), ("", ""));
}
