//! The process of a mount is killed, and another goes on where it stopped.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cachewfs_tests::{
    Fault, Proxy, Site, binary, can_mount, git, run, run_with_deadline, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::hand_over::{Shell, read_in_a_loop};

/// A mount that a process in the background serves. Dropping it unmounts.
struct Background(PathBuf);

impl Background {
    fn mount(site: &Site, url: &str) -> Self {
        let point = site.path().join("mnt");
        fs::create_dir(&point).unwrap();
        let mount = Self(point);
        fs::create_dir(mount.log().parent().unwrap()).unwrap();
        let options = format!(
            "cache_dir={},log={},hydrate=off,poll_interval=200ms,lookup_timeout=30s",
            site.path().join("cache").display(),
            mount.log().display()
        );
        let output = run(&["mount", "-o", &options, url, &mount.0.display().to_string()]);
        assert!(output.status.success(), "{output:?}");
        mount
    }

    fn log(&self) -> PathBuf {
        self.0.with_file_name("log").join("mount.log")
    }

    fn repo(&self) -> PathBuf {
        self.0.join("local/project")
    }

    /// Returns the status of the mount, or `None` if no process answers.
    fn status(&self) -> Option<serde_json::Value> {
        let output = run(&["status", "--json", "--mount", &self.0.display().to_string()]);
        let mut shown: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(shown["mounts"][0].take())
    }

    /// Returns the process that serves the mount, or `None` if none answers.
    fn process(&self) -> Option<i32> {
        i32::try_from(self.status()?["pid"].as_i64()?).ok()
    }

    /// Returns how many requests for bytes that a reader waits for the process has sent.
    fn demand_requests(&self) -> u64 {
        let status = self.status().unwrap();
        status["traffic"]["demand_requests"].as_u64().unwrap()
    }

    /// Kills the process that serves the mount. Returns that process.
    fn kill(&self) -> i32 {
        let process = self.process().unwrap();
        kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
        process
    }

    fn wait_for_another(&self, killed: i32) {
        wait_until("another process answers", || {
            self.process().is_some_and(|process| process != killed)
        });
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        run(&["umount", &self.0.display().to_string()]);
    }
}

/// Returns the path of the repository's pack.
fn pack(mount: &Path) -> PathBuf {
    let packs = fs::read_dir(mount.join(".objects/local/project/objects/pack")).unwrap();
    let mut packs = packs.map(|entry| entry.unwrap().path());
    let is_pack = |path: &PathBuf| path.extension() == Some("pack".as_ref());
    packs.find(is_pack).unwrap()
}

#[test]
fn a_mount_whose_new_process_was_started_by_one_of_its_users_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = Background::mount(&site, &daemon.url());
    let before = mount.process();

    // A script has a file of the mount open, as may be one that runs the package manager.
    let script = "exec 3<\"$1\" && exec \"$2\" mount --replace \"$3\"";
    let mut replacing = Command::new("sh");
    replacing.args(["-c", script, "sh"]);
    replacing.arg(mount.repo().join(".git/HEAD"));
    let replaced = replacing.arg(binary("cachewfs")).arg(&mount.0).output();

    let replaced = replaced.unwrap();
    assert!(replaced.status.success(), "{replaced:?}");
    assert_ne!(mount.process(), before);
    let unmounted = Command::new("umount").arg(&mount.0).output().unwrap();
    assert!(unmounted.status.success(), "{unmounted:?}");
}

#[test]
fn a_mount_whose_process_is_killed_goes_on_under_its_users() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = Background::mount(&site, &daemon.url());
    let mounted = mount.repo();
    let log = &["log", "-p"];
    let expected = git(&repo.work, log);
    assert!(git(&mounted, log) == expected);
    let old_readme = File::open(mounted.join("README.md")).unwrap();
    repo.write("README.md", b"# another version\n");
    repo.commit("another version");
    repo.push();
    wait_until("the mount shows the push", || {
        fs::read(mounted.join("README.md")).unwrap() == b"# another version\n"
    });
    // The cache has all of it, so the kernel reads this one itself.
    let path = pack(&mount.0);
    let bytes = fs::read(&path).unwrap();
    let open = File::open(&path).unwrap();
    let mut shell = Shell::new(&mounted.join("src"));
    let stop = Arc::new(AtomicBool::new(false));
    let reader = read_in_a_loop(mounted.clone(), Arc::clone(&stop));
    let expected = git(&repo.work, log);

    // Each process has a holder of its own.
    let replaced = run(&["mount", "--replace", &mount.0.display().to_string()]);
    assert!(replaced.status.success(), "{replaced:?}");

    for _ in 0..3 {
        let killed = mount.kill();
        // It waits for the next process.
        assert_eq!(shell.ask("head -1 dir3/file3.txt"), "3 line");
        assert_eq!(shell.ask("ls | wc -l"), "7");
        let mut part = [0; 9];
        old_readme.read_exact_at(&mut part, 0).unwrap();
        assert_eq!(&part, b"# version");
        let mut part = vec![0; bytes.len()];
        open.read_exact_at(&mut part, 0).unwrap();
        assert!(part == bytes);
        // Beside the open file, which fixes how the kernel reads this inode.
        assert!(fs::read(&path).unwrap() == bytes);
        assert!(git(&mounted, log) == expected);
        mount.wait_for_another(killed);
    }

    stop.store(true, Ordering::Relaxed);
    let (rounds, longest) = reader.join().unwrap();
    println!("{rounds} rounds of a reader, the longest took {longest:?}");
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    repo.write("README.md", b"after the crash\n");
    repo.commit("after the crash");
    repo.push();
    wait_until("the last process catches up", || {
        fs::read(mounted.join("README.md")).unwrap() == b"after the crash\n"
    });
    drop((open, old_readme, shell));
    // Something kills each process: the holder gives up.
    mount.kill();
    wait_until("the mount is gone", || fs::read_dir(&mounted).is_err());
    let log = fs::read_to_string(mount.log()).unwrap();
    for (count, expected) in [
        (3, "was killed: another one goes on signal=9"),
        (1, "no process that followed it lasted: the mount ends"),
    ] {
        assert_eq!(log.matches(expected).count(), count, "{log}");
    }
}

#[test]
fn a_read_that_the_killed_process_had_begun_is_answered_by_the_next() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let proxy = Proxy::start(daemon.address());
    let mount = Background::mount(&site, &proxy.url());
    let file = File::open(mount.repo().join("src/dir1/file1.txt")).unwrap();
    let before = mount.demand_requests();
    proxy.set(Fault::Stall);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        (&file).read_to_string(&mut text).map(|_| text)
    });
    wait_until("the read waits", || mount.demand_requests() > before);
    assert!(!reader.is_finished());

    let killed = mount.kill();
    proxy.set(Fault::None);

    assert_eq!(reader.join().unwrap().unwrap(), "1 line\n".repeat(200));
    mount.wait_for_another(killed);
}

#[test]
fn commands_wait_for_the_process_that_follows_a_killed_one() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = Background::mount(&site, &daemon.url());
    assert!(mount.repo().join("README.md").exists());
    let point = mount.0.display().to_string();

    for command in [
        &["status", "--mount", &point][..],
        &["mount", "--replace", &point],
        &["refresh", "local/project", "--mount", &point],
        &["umount", &point],
    ] {
        mount.kill();
        let output = run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    assert_eq!(fs::read_dir(&mount.0).unwrap().count(), 0);
}

#[test]
fn umount_works_although_the_process_is_killed_meanwhile() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let daemon = site.daemon();
    let mount = Background::mount(&site, &daemon.url());
    let process = Pid::from_raw(mount.process().unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let point = mount.0.clone();
    // Whether it has connected by then or not.
    let umount = std::thread::spawn(move || run(&["umount", &point.display().to_string()]));
    kill_process(process, Signal::KILL).unwrap();

    let output = umount.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(&mount.0).unwrap().count(), 0);
}

#[test]
fn a_mount_goes_on_without_its_log_its_cache_and_its_daemon() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let mut daemon = site.daemon();
    let mount = Background::mount(&site, &daemon.url());
    let mounted = mount.repo();
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    daemon.kill();
    fs::remove_dir_all(mount.log().parent().unwrap()).unwrap();
    fs::remove_dir_all(site.path().join("cache")).unwrap();

    let killed = mount.kill();

    // An answer in time, if only an error: nothing has the files any more.
    let (point, file) = (mount.0.clone(), mounted.join("README.md"));
    let limit = Duration::from_secs(20);
    let (hosts, read) = run_with_deadline("a read", limit, move || {
        let hosts = fs::read_dir(point).map(Iterator::count);
        (hosts, fs::read(file))
    });
    assert_eq!(hosts.unwrap(), 1);
    read.unwrap_err();
    mount.wait_for_another(killed);
    daemon.restart();
    wait_until("the repository is opened anew", || {
        fs::read(mounted.join("README.md")).is_ok()
    });
    let log = &["log", "-p"];
    assert_eq!(git(&mounted, log), git(&repo.work, log));
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}
