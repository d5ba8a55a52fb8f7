//! Several mounts at once: which one a command uses, and repositories that are named by a path.

use std::path::{Path, PathBuf};

use cachewfs_tests::{DaemonProcess, MountProcess, Site, can_mount, git, said, wait_until};

/// Two mounts: both serve the host `local`, and only the second one serves `other`.
struct TwoMounts {
    site: Site,
    first: MountProcess,
    second: MountProcess,
    _daemons: [DaemonProcess; 2],
}

impl TwoMounts {
    fn start() -> Self {
        let site = Site::default();
        site.repo_of_files("project", (3, 1000));
        let first_daemon = site.daemon();
        let more = format!("other = \"file://{}\"", site.upstreams().display());
        let directory = site.path().join("second-daemon");
        let second_daemon = DaemonProcess::start_with_tables(&directory, &site.upstreams(), &more);
        let first = site.mount(&first_daemon.url());
        let directory = site.path().join("second");
        let second = MountProcess::start(&directory, &second_daemon.url(), "hydrate=off");
        for mount in [&first, &second] {
            wait_until("the mount knows the hosts", || {
                mount.status()["hosts"]
                    .as_array()
                    .is_some_and(|hosts| !hosts.is_empty())
            });
        }
        Self {
            site,
            first,
            second,
            _daemons: [first_daemon, second_daemon],
        }
    }

    /// Runs `cachewfs` in `directory`. Returns its exit code and what it prints.
    fn run(&self, directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.site.cli_with_own_mounts(directory);
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), said(&output))
    }

    /// Returns the mount whose objects a clone borrows.
    fn lender(&self, clone: &Path) -> PathBuf {
        let alternates = std::fs::read_to_string(clone.join(".git/objects/info/alternates"));
        let alternates = alternates.unwrap();
        let points = [&self.first.point, &self.second.point];
        let lends = |point: &&&PathBuf| Path::new(&alternates).starts_with(point);
        (*points.iter().find(lends).unwrap()).clone()
    }
}

#[test]
fn a_command_chooses_the_mount_that_serves_the_repository_or_is_near() {
    if !can_mount() {
        return;
    }
    let mounts = TwoMounts::start();
    let work = mounts.site.path().join("work");
    let (first, second) = (mounts.first.point.clone(), mounts.second.point.clone());

    // The host decides.
    let (code, text) = mounts.run(&work, &["clone", "other/project", "by-host"]);
    assert_eq!(code, Some(0), "{text}");
    let says = format!("cachewfs: using the mount at {}: ", second.display());
    assert!(text.contains(&says), "{text}");
    assert_eq!(mounts.lender(&work.join("by-host")), second);
    // Both serve the host. The clone beside the new one decides.
    let (code, text) = mounts.run(&work, &["clone", "local/project", "beside"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(mounts.lender(&work.join("beside")), second);
    // Nothing decides.
    let elsewhere = mounts.site.path().join("else/where");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let (code, text) = mounts.run(&elsewhere, &["refresh", "local/absent"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("several mounts are running"), "{text}");
    // The current directory is in a mount, or in a clone.
    let (code, text) = mounts.run(&first, &["pin", "https://local/project"]);
    assert_eq!(code, Some(0), "{text}");
    let says = format!("using the mount at {}: ", first.display());
    assert!(text.contains(&says), "{text}");
    let (code, text) = mounts.run(&work.join("by-host"), &["refresh", "local/project"]);
    assert_eq!(code, Some(0), "{text}");
    let says = format!("using the mount at {}: ", second.display());
    assert!(text.contains(&says), "{text}");
}

#[test]
fn a_repository_may_be_named_by_a_path() {
    if !can_mount() {
        return;
    }
    let mounts = TwoMounts::start();
    let point = mounts.second.point.clone();
    let work = mounts.site.path().join("work");
    std::os::unix::fs::symlink(&point, work.join("link")).unwrap();
    let in_mount = |rest: &str| point.join(rest).display().to_string();
    let url = git(
        mounts.site.upstreams().join("project"),
        &["rev-parse", "--absolute-git-dir"],
    );

    for (number, (directory, path)) in [
        (&work, in_mount("other/project/")),
        (&work, in_mount("other/project.git")),
        (&work, in_mount("other/project/.git/refs")),
        (&work, in_mount("other/project/0")),
        (&work, "link/other/project".to_owned()),
        (&work, "../second/mnt/other/project".to_owned()),
        (&point, "./other/project".to_owned()),
        (&point.join("other"), "project/".to_owned()),
        (&point.join("other/project"), ".".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let clone = work.join(format!("clone-{number}"));
        let target = clone.display().to_string();
        let (code, text) = mounts.run(directory, &["clone", &path, &target]);
        assert_eq!(code, Some(0), "{path}: {text}");
        assert!(
            text.contains("Cloned other/project into "),
            "{path}: {text}"
        );
        assert_eq!(mounts.lender(&clone), point, "{path}");
        let origin = git(&clone, &["remote", "get-url", "origin"]);
        assert_eq!(origin.trim(), format!("file://{}", url.trim()), "{path}");
    }
    // A clone stands for its repository.
    let (code, text) = mounts.run(&work, &["refresh", "./clone-0"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("other/project is at "), "{text}");
    // The mount itself, and a directory of names, are no repositories.
    for path in [in_mount(""), in_mount("other")] {
        let (code, text) = mounts.run(&work, &["pin", &path]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("and in no repository of it"), "{text}");
    }
    let (code, text) = mounts.run(&work, &["pin", &in_mount("other/absent/src")]);
    assert_eq!(code, Some(4), "{text}");
}
