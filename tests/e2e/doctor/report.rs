//! Secrets in every place, and a report without them.

use std::fs;
use std::process::Command;

use cachewfs_tests::{Site, binary, can_mount, write_file};

#[test]
fn a_report_has_what_a_ticket_needs_and_no_secret() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let log = site.path().join("log");
    let token = site.path().join("token");
    write_file(&token, "planted-in-the-token-file\n");
    let options = format!("log={},token_file={}", log.display(), token.display());
    let mount = site.mount_with_options(&daemon.url(), &options);
    let logged = "INFO the token is planted-in-the-token-file\n\
        > Authorization: Basic cGxhbnRlZC1pbi1hLWhlYWRlcg==\n\
        GET https://b.test/k?X-Amz-Credential=planted-key&X-Amz-Signature=planted-signature done\n\
        fetch https://alice:planted-password@h.test/a failed\n\
        got cwfs_plantedtokenofadaemon0123456789\n\
        the variable is planted-in-the-environment\n\
        the last line\n";
    let before = fs::read_to_string(&log).unwrap();
    write_file(&log, before + logged);
    let file = site.path().join("ticket.txt");

    let output = Command::new(binary("cachewfs"))
        .args(["report", "-o", &file.display().to_string()])
        .env("MY_SECRET", "planted-in-the-environment")
        .env(
            "https_proxy",
            "http://bob:planted-proxy-password@proxy.test:3128/",
        )
        .env("CACHEWFS_LOG", "planted-in-the-environment")
        .current_dir(site.path())
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let report = fs::read_to_string(&file).unwrap();
    for text in [&said, report.as_str()] {
        for secret in ["planted", "cGxhbnRlZC", "alice", "bob:"] {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret}");
        }
    }
    let point = mount.point.display().to_string();
    for expected in [
        "https_proxy=http://***@proxy.test:3128/",
        "> Authorization: ***",
        "GET https://b.test/k?*** done",
        "fetch https://***@h.test/a failed",
        "the last line",
        "git version ",
        &format!("== {point}: status =="),
        &daemon.url(),
        "\"name\": \"daemon HTTP\"",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let table = report
        .lines()
        .any(|line| line.contains(&point) && line.contains(" - fuse.cachewfs "));
    assert!(table, "{report}");

    let again = cachewfs_tests::run(&["report", "-o", &file.display().to_string()]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "an existing file is kept: {again:?}"
    );
}
