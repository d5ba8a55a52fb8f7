//! A mount follows upstream while commands run in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cachewfs_tests::{Site, can_mount, git, try_git, wait_until};

/// Returns how often upstream is pushed to while readers run. `CACHEWFS_TEST_PUSHES` sets it; for a
/// release it is 200.
fn pushes() -> u32 {
    let pushes = std::env::var("CACHEWFS_TEST_PUSHES").ok();
    pushes.and_then(|pushes| pushes.parse().ok()).unwrap_or(25)
}

#[test]
fn a_push_shows_by_itself() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    let before = mount.traffic("demand_bytes");

    repo.write("src/new/file", b"new\n");
    repo.write("README.md", b"another\n");
    let commit = repo.commit("a new file in a new directory");
    repo.push();

    wait_until("the mount shows the push", || {
        mounted.join("src/new/file").exists()
    });
    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), commit);
    assert_eq!(
        std::fs::read(mounted.join("README.md")).unwrap(),
        b"another\n"
    );
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    // The catch-up fetched the increment itself. The commands waited only for the two files, which
    // had not been read before, and for no old pack.
    let demanded = mount.traffic("demand_bytes") - before;
    assert!(
        demanded < 256 << 10,
        "the commands waited for {demanded} bytes"
    );
}

#[test]
fn no_reader_ever_sees_an_error_while_upstream_moves() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [
        ("local/project", &["log", "-3", "--stat"][..]),
        ("local/project.git", &["rev-list", "--objects", "--all"]),
        ("local/project", &["status", "--porcelain"]),
    ]
    .map(|(name, arguments)| {
        let (mounted, ended) = (mount.repo(name), Arc::clone(&ended));
        std::thread::spawn(move || {
            let mut runs = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                let output = try_git(&mounted, arguments);
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                // Whether the error lasts helps to find its cause.
                let fails_again = || !try_git(&mounted, arguments).status.success();
                assert!(
                    output.status.success(),
                    "git {arguments:?}: {stderr}; fails again: {}",
                    fails_again()
                );
                assert_eq!(stderr, "", "git {arguments:?}");
                runs += 1;
            }
            runs
        })
    })
    .into();

    let mut last = String::new();
    for number in 0..pushes() {
        repo.write(
            format!("src/dir{}/moving", number % 5),
            number.to_string().as_bytes(),
        );
        last = repo.commit(&format!("move {number}"));
        repo.push();
        let seen = || git(&mounted, &["rev-parse", "HEAD"]).trim() == last;
        wait_until("the mount shows the push", seen);
    }

    ended.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert_eq!(git(&mounted, &["rev-parse", "HEAD"]).trim(), last);
    let status = mount.status();
    // One catch-up may cover several pushes.
    assert!(status["repos"][0]["catch_ups"].as_u64().unwrap() >= u64::from(pushes()) / 2);
    assert!(try_git(&mounted, &["fsck", "--full"]).status.success());
    let packs = crate::mounted::packs(&mount.packs("local/project"));
    assert!(packs <= 5 + pushes() as usize, "{packs} packs");
}

#[test]
fn refresh_shows_a_push_at_once() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off,poll_interval=1h");
    mount.cli(&["prefetch", "local/project"]);
    let commit = repo.commit("news");
    repo.push();

    let said = mount.cli(&["refresh", "local/project"]);

    assert!(said.contains(&commit), "{said}");
    assert_eq!(
        git(mount.repo("local/project"), &["rev-parse", "HEAD"]).trim(),
        commit
    );
}

#[test]
fn a_working_directory_survives_a_catch_up() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let inside = mount.repo("local/project").join("src/dir1");
    let mut shell = std::process::Command::new("sh")
        .args([
            "-c",
            "read line; git status --porcelain && pwd && ls new-here",
        ])
        .current_dir(&inside)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    repo.write("src/dir1/new-here", b"x\n");
    let commit = repo.commit("beside the shell");
    repo.push();
    let seen = || git(mount.repo("local/project"), &["rev-parse", "HEAD"]).trim() == commit;
    wait_until("the mount shows the push", seen);

    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), b"\n").unwrap();

    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.ends_with("new-here\n"),
        "{said}"
    );
}
