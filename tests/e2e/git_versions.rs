//! Daemons and workstations with different versions of git work together.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cachewfs_tests::{
    DaemonProcess, GitRepo, GitVersion, MountProcess, Site, assert_index_checksum, binary,
    can_mount, extract_archive, free_address, git, git_command, init_bare, wait_until,
};

/// A workstation with one version of git.
struct Workstation<'a> {
    git: &'a GitVersion,
    daemon: &'a DaemonProcess,
    /// The directory with all files of the workstation.
    directory: PathBuf,
}

impl Workstation<'_> {
    fn succeed(&self, what: &str, command: &mut Command) -> Output {
        let output = command
            .env("PATH", self.git.path())
            // The defaults of git 3.0, which older versions can be told to use.
            .env("GIT_DEFAULT_REF_FORMAT", "reftable")
            .env("GIT_DEFAULT_HASH", "sha256")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {what}: {stderr}", self.git);
        output
    }

    fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        let mut command = git_command(directory);
        // A user without any configuration.
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(arguments);
        let output = self.succeed(&format!("git {arguments:?}"), &mut command);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn cachewfs(&self, arguments: &[&str]) {
        let mut command = Command::new(binary("cachewfs"));
        self.succeed("cachewfs", command.args(arguments));
    }

    fn fetch(&self, path: &str, to: &str) -> PathBuf {
        let file = self.directory.join(to);
        let url = format!("{}/git/local/project/{path}", self.daemon.url());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", &url, "--output"])
            .arg(&file);
        self.succeed(path, &mut curl);
        file
    }

    /// Panics unless HEAD of `repository` is `head`, its work tree is clean, and it is complete.
    fn assert_good(&self, repository: &Path, head: &str) {
        assert_eq!(self.git(repository, &["log", "-1", "--format=%H"]), head);
        assert_eq!(
            self.git(repository, &["status", "--porcelain"]),
            "",
            "{}",
            self.git
        );
        self.git(repository, &["fsck", "--full", "--strict"]);
        assert_index_checksum(&repository.join(".git"));
    }
}

/// Mounts, clones and restores a repository. Then pushes to upstream, and brings everything up to
/// date.
fn run_all_workflows(workstation: &Workstation<'_>, repo: &mut GitRepo) {
    let head = git(&repo.work, &["rev-parse", "HEAD"]).trim().to_owned();
    let directory = &workstation.directory;
    let path = |name: &str| directory.join(name).display().to_string();
    let mount = MountProcess::start(directory, &workstation.daemon.url(), "hydrate=off");
    let mounted = mount.repo("local/project");
    workstation.assert_good(&mounted, &head);
    let point = mount.point.display().to_string();
    workstation.cachewfs(&[
        "clone",
        "--mount",
        &point,
        "local/project",
        &path("borrowing"),
    ]);
    workstation.assert_good(&directory.join("borrowing"), &head);
    let mounted_path = mounted.display().to_string();
    workstation.git(directory, &["clone", "-q", &mounted_path, &path("plain")]);
    workstation.assert_good(&directory.join("plain"), &head);
    let archive = workstation.fetch("snapshot.tar.zst", "snapshot.tar.zst");
    let restored = directory.join("restored");
    std::fs::create_dir_all(&restored).unwrap();
    extract_archive(&archive, &restored);
    workstation.assert_good(&restored, &head);

    repo.write("pushed", head.as_bytes());
    let pushed = repo.commit("pushed meanwhile");
    repo.push();
    workstation.cachewfs(&["refresh", "--mount", &point, "local/project"]);

    wait_until("the mount has caught up", || {
        workstation.git(&mounted, &["rev-parse", "HEAD"]) == pushed
    });
    workstation.assert_good(&mounted, &pushed);
    for clone in ["borrowing", "plain"] {
        let clone = directory.join(clone);
        workstation.git(&clone, &["pull", "-q", "--ff-only", "origin", "main"]);
        workstation.assert_good(&clone, &pushed);
    }
    // A restored clone is brought up to date with a bundle.
    let bundle = workstation.fetch(&format!("snapshot.bundle?base={head}"), "bundle");
    let bundle = bundle.display().to_string();
    workstation.git(&restored, &["pull", "-q", "--ff-only", &bundle, "main"]);
    workstation.assert_good(&restored, &pushed);
}

#[test]
fn a_daemon_and_workstations_with_different_versions_understand_each_other() {
    if !can_mount() {
        return;
    }
    let versions = GitVersion::all();
    for (number, of_daemon) in versions.iter().enumerate() {
        let site = Site::default();
        // Workstations fetch from this directory with their own git. Old versions can read no other
        // ref format than `files`.
        init_bare(&site.upstreams().join("project"));
        let mut repo = site.repo_with_history("project");
        let text = format!(
            "data_dir = \"{}\"\n[upstreams]\nlocal = \"file://{}\"\n",
            site.path().join("data").display(),
            site.upstreams().display()
        );
        let path = format!("PATH={}", of_daemon.path());
        let wrapper = ["env", &path];
        let log = site.path().join("daemon");
        let daemon = DaemonProcess::launch(&log, (&wrapper, free_address()), &text);
        for (other, git) in versions.iter().enumerate() {
            let workstation = Workstation {
                git,
                daemon: &daemon,
                directory: site.path().join(format!("workstation-{number}-{other}")),
            };
            println!("a daemon with {of_daemon}, a workstation with {git}");
            run_all_workflows(&workstation, &mut repo);
        }
    }
}
