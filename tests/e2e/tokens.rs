//! A daemon that requires a token, and mounts with and without one.

use std::fs;
use std::path::Path;
use std::process::Command;

use cachewfs_tests::{DaemonProcess, Site, binary, can_mount, git, run, wait_until, write_file};

const POLICY: &str = "package cachewfs\nimport rego.v1\ndefault allow := false\n\
                      allow if \"team\" in input.groups\n";

/// Starts a daemon that admits only the group `team`. Returns it with the token of a member, which
/// is also in the file `token`.
pub(crate) fn restricted_daemon(site: &Site) -> (DaemonProcess, String) {
    let path = |name: &str| site.path().join(name);
    let made = Command::new(binary("cachewfsd"))
        .args(["new-token", "alice", "--group", "team"])
        .output()
        .unwrap();
    let said = String::from_utf8(made.stderr).unwrap();
    let token = said.trim().rsplit(' ').next().unwrap();
    assert!(token.starts_with("cwfs_"), "{said}");
    write_file(&path("tokens"), &made.stdout);
    write_file(&path("policy.rego"), POLICY);
    write_file(&path("token"), format!("{token}\n"));
    let section = format!(
        "[auth]\ntokens_file = \"{}\"\npolicy = \"{}\"\n",
        path("tokens").display(),
        path("policy.rego").display()
    );
    let daemon = DaemonProcess::start_with_tables(&path("daemon"), &site.upstreams(), &section);
    (daemon, token.to_owned())
}

fn mentions(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap_or_default();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_mount_shows_its_token_and_one_without_is_refused() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let (daemon, token) = restricted_daemon(&site);

    let stranger = site.mount(&daemon.url());
    let refused = fs::read_dir(stranger.repo("local/project")).unwrap_err();
    assert_eq!(
        refused.raw_os_error(),
        Some(rustix::io::Errno::ACCESS.raw_os_error())
    );
    let point = stranger.point.display().to_string();
    let pin = run(&["pin", "local/project", "--mount", &point]);
    let said = String::from_utf8_lossy(&pin.stderr);
    assert!(said.contains("-o token_file=FILE"), "{said}");
    drop(stranger);
    let file = site.path().join("token");
    let option = format!("hydrate=off,token_file={}", file.display());
    let mount = site.mount_with_options(&daemon.url(), &option);
    wait_until("the repository shows", || {
        mount.repo("local/project").join(".git").exists()
    });

    let log = git(mount.repo("local/project"), &["log", "-p", "--format=%H"]);

    assert_eq!(log, git(&repo.work, &["log", "-p", "--format=%H"]));
    assert!(!daemon.log().contains(&token));
    assert!(!mentions(
        &site.path().join("workstation/mount.log"),
        &token
    ));
}

#[test]
fn a_restore_needs_the_token() {
    let site = Site::default();
    site.repo_with_history("project");
    let (daemon, _) = restricted_daemon(&site);
    let url = format!("{}/git/local/project", daemon.url());
    let target = site.path().join("restored").display().to_string();
    let token = site.path().join("token").display().to_string();

    let refused = run(&["restore", &url, &target]);
    let restored = run(&["restore", "--token-file", &token, &url, &target]);

    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("--token-file"),
        "{}",
        said(&refused)
    );
    assert!(restored.status.success(), "{}", said(&restored));
    let directory = Path::new(&target);
    assert_eq!(git(directory, &["status", "--porcelain"]), "");
    assert!(!mentions(&directory.join(".git/config"), "cwfs_"));
}
