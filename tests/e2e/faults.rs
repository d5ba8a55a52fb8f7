//! Mounts behind a bad network, and with a full disk.

use cachewfs_tests::{Fault, Proxy, Site, can_mount, git, run, try_git, wait_until};
use rustix::mount::MountFlags;

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

#[test]
fn a_cache_that_can_only_be_read_is_named_once_and_by_pin() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let cache = site.path().join("workstation/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let _tmpfs = TinyTmpfs::mount(&cache, 10_000);
    drop(site.mount(&daemon.url()));
    rustix::mount::mount_remount(&cache, MountFlags::RDONLY, "").unwrap();
    let mount = site.mount(&daemon.url());

    let log = git(mount.repo("local/project"), &["log", "-p", "--format=%H"]);
    let point = mount.point.display().to_string();
    let pin = run(&["pin", "local/project", "--mount", &point]);

    assert_eq!(log, git(&repo.work, &["log", "-p", "--format=%H"]));
    let said = String::from_utf8_lossy(&pin.stderr);
    let expected = format!(
        "cachewfs: can't pin local/project: can't use the cache: can't write to {}: Read-only",
        cache.join("v1").display()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(mount.log().matches("Can't use the cache").count(), 1);
}

#[test]
fn a_cache_that_the_kernel_cannot_pass_through_is_logged_once() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let cache = site.path().join("workstation/cache");
    let _overlay = Overlay::mount(&cache, site.path());
    let mount = site.mount(&daemon.url());
    mount.cli(&["prefetch", "--all", "local/project"]);

    let log = git(mount.repo("local/project"), &["log", "-p", "--format=%H"]);

    assert_eq!(log, git(&repo.work, &["log", "-p", "--format=%H"]));
    let passthrough = mount.status()["passthrough"].take();
    assert_eq!(passthrough["is_used"], false);
    let reason = passthrough["reason"].as_str().unwrap();
    assert!(reason.contains("the cache is on overlayfs"), "{reason}");
    let refused = mount.log().matches("Can't use passthrough").count();
    assert_eq!(refused, 1, "{}", mount.log());
}

/// An overlay filesystem over an existing directory. Dropping it unmounts it.
struct Overlay(std::path::PathBuf);

impl Overlay {
    /// Mounts the overlay at `point`, with its layers in `beside`.
    fn mount(point: &std::path::Path, beside: &std::path::Path) -> Self {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|layer| {
            let directory = beside.join(layer);
            std::fs::create_dir_all(&directory).unwrap();
            directory.display().to_string()
        });
        std::fs::create_dir_all(point).unwrap();
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "overlay", "-o", &options, "overlay"])
            .arg(point)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting an overlay failed");
        Self(point.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
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
