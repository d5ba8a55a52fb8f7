//! Unusual names and repositories either work or get a clear error.

use std::process::Command;

use cachewfs_tests::{Site, can_mount, git, run, try_git, wait_until};

/// Returns the HTTP status and the error code with which the daemon answers a request for `path`.
fn answer(url: &str, path: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--path-as-is", "--write-out", "\n%{http_code}"])
        .arg(format!("{url}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    (
        status.to_owned(),
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[test]
fn bad_urls_get_a_clear_error() {
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let url = daemon.url();
    let assert_answer = |path: &str, status: &str, code: &str| {
        wait_until(&format!("{path} answers {status} {code}"), || {
            let found = answer(&url, path);
            // 503 means "not known yet": the daemon hasn't heard from upstream.
            if found.0 == "503" {
                return false;
            }
            assert_eq!(found, (status.to_owned(), code.to_owned()), "{path}");
            true
        });
    };

    assert_answer("/git/example.org/a/snapshot.tar.zst", "404", "unknown_host");
    assert_answer("/git/local/../etc/snapshot.tar.zst", "400", "bad_repo_name");
    assert_answer(
        "/git/local/%2e%2e/x/snapshot.tar.zst",
        "400",
        "bad_repo_name",
    );
    assert_answer("/git/local/-x/snapshot.tar.zst", "400", "bad_repo_name");
    assert_answer(
        "/git/local/absent/snapshot.tar.zst",
        "404",
        "upstream_not_found",
    );
    assert_answer(
        "/git/local/project/snapshot/HEAD.tar.zst",
        "400",
        "bad_snapshot_id",
    );
    let unknown = format!("/git/local/project/snapshot/{}.tar.zst", "1".repeat(40));
    assert_answer(&unknown, "404", "no_snapshot");
}

#[test]
fn an_empty_repository_is_reported_as_empty() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo("empty");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let point = mount.point.display().to_string();

    let empty = run(&["prefetch", "local/empty", "--mount", &point]);

    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !empty.status.success() && said(&empty).contains("repository_empty"),
        "{}",
        said(&empty)
    );
}

#[test]
fn an_organisation_is_a_directory_and_a_mistyped_name_is_not_found() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut nested = site.repo("org/team/project");
    nested.add_history(3);
    nested.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    // The directory of an organisation exists once the mount knows a repository in it.
    mount.cli(&["prefetch", "local/org/team/project"]);

    assert_eq!(
        git(
            mount.repo("local/org/team/project"),
            &["status", "--porcelain"]
        ),
        ""
    );
    wait_until("the organisation is a directory", || {
        mount.repo("local/org").is_dir()
    });
    wait_until("a mistyped name is not found", || {
        std::fs::metadata(mount.repo("local/org/tema/project"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    });
    assert!(!mount.repo("unknown.example").exists());
}

#[test]
fn a_detached_head_and_submodules_work() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut inner = site.repo("inner");
    inner.add_history(2);
    inner.push();
    let mut outer = site.repo("outer");
    outer.add_history(4);
    let inner_url = inner.upstream.display().to_string();
    git(
        &outer.work,
        &["submodule", "--quiet", "add", &inner_url, "sub module"],
    );
    let commit = outer.commit("a submodule");
    outer.push();
    git(
        &outer.upstream,
        &["update-ref", "--no-deref", "HEAD", &commit],
    );
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/outer");

    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), commit);
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    assert_eq!(
        std::fs::read_dir(mounted.join("sub module"))
            .unwrap()
            .count(),
        0
    );
    let clone = site.path().join("clone").display().to_string();
    mount.cli(&["clone", "local/outer", &clone]);
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).trim(), commit);
}

#[test]
fn a_file_of_3_gb_is_fetched_only_where_it_is_read() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("large");
    repo.write("small", b"small\n");
    let file = std::fs::File::create(repo.work.join("huge")).unwrap();
    file.set_len(3_000_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"needle", 2_900_000_000).unwrap();
    drop(file);
    git(&repo.work, &["config", "core.bigFileThreshold", "1m"]);
    repo.commit("a file of 3 GB");
    git(&repo.upstream, &["config", "core.bigFileThreshold", "1m"]);
    repo.push();
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    mount.cli(&["refresh", "local/large"]);

    let huge = std::fs::File::open(mount.repo("local/large").join("huge")).unwrap();
    let mut found = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&huge, &mut found, 2_899_999_999).unwrap();

    assert_eq!(&found, b"\0needle\0");
    assert_eq!(huge.metadata().unwrap().len(), 3_000_000_000);
    assert_eq!(
        git(mount.repo("local/large"), &["status", "--porcelain"]),
        ""
    );
    let fetched = mount.traffic("fetched_bytes");
    assert!(fetched < 32 << 20, "fetched {fetched} bytes to read 8");
}

#[test]
fn nothing_can_be_written_in_a_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");

    for arguments in [
        &["commit", "--allow-empty", "-m", "x"][..],
        &["tag", "x"],
        &["gc"],
        &["fetch"],
    ] {
        assert!(
            !try_git(&mounted, arguments).status.success(),
            "git {arguments:?}"
        );
    }

    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}
