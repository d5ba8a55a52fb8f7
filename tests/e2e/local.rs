//! The whole system in one process.

use cachewfs_tests::{MountProcess, Site, can_mount, git};

#[test]
fn an_embedded_daemon_serves_the_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.grown_repo("project");
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
