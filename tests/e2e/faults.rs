//! Mounts behind a bad network, and with a full disk.

use cachewfs_tests::{Fault, Proxy, Site, can_mount, git, try_git, wait_until};

#[test]
fn cut_connections_only_slow_reads_down() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    site.mount(&daemon.url())
        .cli(&["prefetch", "local/project"]);
    let proxy = Proxy::start(daemon.address());
    proxy.set(Fault::CutAfter(20_000));
    std::fs::remove_dir_all(site.path().join("workstation/cache")).unwrap();
    let mount = site.mount(&proxy.url());
    // The TOC must arrive in one piece: it is verified as a whole.
    proxy.set(Fault::None);
    git(mount.repo("local/project"), &["rev-parse", "HEAD"]);
    proxy.set(Fault::CutAfter(20_000));

    let log = git(mount.repo("local/project"), &["log", "-p", "--format=%H"]);

    assert_eq!(log, git(&repo.work, &["log", "-p", "--format=%H"]));
}

#[test]
fn corrupt_bytes_are_never_shown() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount_with_options(&proxy.url(), "hydrate=off,read_timeout=3s");
    git(mount.repo("local/project"), &["rev-parse", "HEAD"]);
    proxy.set(Fault::CorruptEvery(3_000));

    let broken = try_git(&mount.repo("local/project"), &["log", "-p", "--format=%H"]);
    proxy.set(Fault::None);
    // A read that failed is answered by its failure for a moment more.
    let mut mended = Vec::new();
    wait_until("the log can be read", || {
        let log = try_git(&mount.repo("local/project"), &["log", "-p", "--format=%H"]);
        mended = log.stdout;
        log.status.success()
    });

    let expected = git(&repo.work, &["log", "-p", "--format=%H"]);
    // git may print a part of the log before it hits the error. This part must be right.
    let shown = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(
        expected.starts_with(shown.trim_end()),
        "wrong bytes were shown"
    );
    assert_eq!(String::from_utf8_lossy(&mended), expected);
}

#[test]
fn an_unavailable_daemon_only_slows_reads_down() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = site.mount(&proxy.url());
    let mounted = mount.repo("local/project");
    mount.cli(&["prefetch", "local/project"]);
    proxy.set(Fault::Unavailable);

    let reading = std::thread::spawn(move || git(&mounted, &["grep", "line"]));
    wait_until("a request was tried again", || mount.traffic("retries") > 0);
    proxy.set(Fault::None);

    assert_eq!(reading.join().unwrap(), git(&repo.work, &["grep", "line"]));
}

#[test]
fn a_full_disk_slows_reads_down_and_breaks_none() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let cache = site.path().join("workstation/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let _tmpfs = TinyTmpfs::mount(&cache, 300);
    let mount = site.mount(&daemon.url());

    let log = git(mount.repo("local/project"), &["log", "-p", "--format=%H"]);

    assert_eq!(log, git(&repo.work, &["log", "-p", "--format=%H"]));
    assert!(
        try_git(&mount.repo("local/project"), &["fsck", "--full"])
            .status
            .success()
    );
}

/// A tmpfs of a few KiB over an existing directory. Dropping it unmounts the tmpfs.
struct TinyTmpfs(std::path::PathBuf);

impl TinyTmpfs {
    fn mount(directory: &std::path::Path, kibibytes: u32) -> Self {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "tmpfs"])
            .arg(directory)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a tmpfs failed");
        Self(directory.to_owned())
    }
}

impl Drop for TinyTmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}
