//! `cachewfs mount --local`: the mount and an embedded daemon in one process.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use cachewfs_tests::{MountProcess, Site, binary, can_mount, git, http_request, said};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/demo");

#[test]
fn an_embedded_daemon_serves_the_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let mount = MountProcess::start_local(&site.path().join("machine"), &site.upstreams());
    let clone = site.path().join("clone").display().to_string();

    mount.cli(&["clone", "local/project", &clone]);

    assert_eq!(
        git(&clone, &["rev-parse", "HEAD"]),
        git(&repo.work, &["rev-parse", "HEAD"])
    );
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    let status = mount.cli(&["status"]);
    assert!(status.contains("local/project"), "{status}");
}

#[test]
fn an_embedded_daemon_answers_its_own_mount_alone() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let mount = MountProcess::start_local(&site.path().join("machine"), &site.upstreams());
    fs::read_dir(mount.repo("local/project")).unwrap();
    let url = mount.status()["daemons"][0].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();

    let made_up = format!("Bearer cwfs_{}", "0".repeat(64));
    for (method, target) in [
        ("GET", "/healthz"),
        ("GET", "/"),
        ("GET", "/api/v1/repos"),
        ("GET", "/git/local/project/snapshot.tar.zst"),
        (
            "GET",
            "/git/local/project/info/refs?service=git-upload-pack",
        ),
        ("POST", "/git/local/project/refresh"),
        ("POST", "/api/v1/repos/local/project/forget?store=true"),
    ] {
        for headers in [&[][..], &[("Authorization", &*made_up)]] {
            let answer = http_request(address, (method, target), headers, Duration::from_secs(10));
            assert_eq!(answer.unwrap().status, 401, "{method} {target} {headers:?}");
        }
    }

    mount.cli(&["refresh", "local/project"]);
    assert!(mount.repo("local/project/.git/HEAD").exists());
    for shown in mount.texts_visible_to_others() {
        assert!(!shown.contains("cwfs_"), "{shown}");
    }
}

#[test]
fn the_demo_compares_itself_with_git_and_leaves_nothing_behind() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let tmp = site.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    let programs = binary("cachewfs");
    let programs = programs.parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();

    // A pipe is no terminal, so the demo ends by itself.
    let mut demo = Command::new(DEMO);
    demo.arg(&repo.upstream).stdin(Stdio::null());
    demo.env("TMPDIR", &tmp)
        .env("PATH", format!("{programs}:{path}"));
    let output = demo.output().unwrap();

    let printed = said(&output);
    assert!(output.status.success(), "{printed}");
    assert!(!printed.contains('\x1b'), "{printed}");
    for row in ["git clone", "cachewfs clone", "the daemon, once"] {
        let row = printed.lines().rfind(|line| line.starts_with(row));
        let row = row.unwrap();
        assert!(row.ends_with(" MB"), "{row}");
    }
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(tmp.to_str().unwrap()), "{mounts}");
}
