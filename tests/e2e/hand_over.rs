//! A new process takes a mount over, and its users notice nothing.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cachewfs_tests::{OtherUser, Site, can_mount, git, git_command, run, said, wait_until};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

/// The user nobody.
const NOBODY: u32 = 65_534;

/// A directory at which a part of a mount is mounted once more, as in a container.
struct BindMount(PathBuf);

impl BindMount {
    fn new(site: &Site, of: &Path) -> Self {
        let point = site.path().join("bind");
        fs::create_dir(&point).unwrap();
        rustix::mount::mount_bind(of, &point).unwrap();
        Self(point)
    }
}

impl Drop for BindMount {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// A shell that works in a directory.
pub(crate) struct Shell(Child);

impl Shell {
    pub(crate) fn new(directory: &Path) -> Self {
        Self::start(Command::new("sh").current_dir(directory))
    }

    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Runs a command, and returns the one line that it prints.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        let mut byte = [0];
        // Not buffered: the next question reads from the same pipe.
        while !line.ends_with('\n') {
            let output = self.0.stdout.as_mut().unwrap();
            assert_eq!(output.read(&mut byte).unwrap(), 1, "the shell ended");
            line.push(char::from(byte[0]));
        }
        line.trim_end().to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Reads again and again until it is told to stop. Returns the number of rounds and the longest.
pub(crate) fn read_in_a_loop(repo: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<(u64, Duration)> {
    std::thread::spawn(move || {
        let expected = fs::read(repo.join("README.md")).unwrap();
        let names = fs::read_dir(repo.join("src")).unwrap().count();
        let (mut rounds, mut longest) = (0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            assert!(fs::read(repo.join("README.md")).unwrap() == expected);
            assert_eq!(fs::read_dir(repo.join("src")).unwrap().count(), names);
            fs::metadata(repo.join(".git/objects")).unwrap();
            assert!(!repo.join(format!("absent-{rounds}")).exists());
            longest = longest.max(started.elapsed());
            rounds += 1;
        }
        (rounds, longest)
    })
}

#[test]
fn nobody_notices_that_another_process_serves_the_mount() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mut mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let log = &["log", "-p"];
    let expected = git(&repo.work, log);
    let bind = BindMount::new(&site, &mounted);
    let mut shell = Shell::new(&mounted.join("src"));
    let mut shell_in_bind = Shell::new(&bind.0);
    let open = File::open(mounted.join("README.md")).unwrap();
    let pack = fs::read_dir(mount.packs("local/project")).unwrap();
    let mut packs = pack.map(|entry| entry.unwrap().path());
    let pack = packs.find(|path| path.extension() == Some("pack".as_ref()));
    let pack = File::open(pack.unwrap()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = read_in_a_loop(mounted.clone(), Arc::clone(&stop));
    let logs = std::thread::spawn({
        let (mounted, stop, expected) = (mounted.clone(), Arc::clone(&stop), expected.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                assert!(git(&mounted, &["log", "-p"]) == expected);
            }
        }
    });
    // It prints more than a pipe holds, so it runs until its output is read.
    let mut running_log = git_command(&mounted)
        .args(log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(running_log.stdout.take().unwrap());
    let mut printed = String::new();
    output.read_line(&mut printed).unwrap();

    for _ in 0..3 {
        mount.replace();

        let mut bytes = [0; 9];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"# version");
        pack.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.starts_with(b"PACK"));
        assert_eq!(shell.ask("head -1 dir3/file3.txt"), "3 line");
        assert_eq!(shell_in_bind.ask("head -c 9 README.md; echo"), "# version");
        assert_eq!(
            shell.ask("/bin/pwd"),
            mounted.join("src").display().to_string()
        );
    }

    stop.store(true, Ordering::Relaxed);
    let (rounds, longest) = reader.join().unwrap();
    println!("{rounds} rounds of a reader, the longest took {longest:?}");
    logs.join().unwrap();
    output.read_to_string(&mut printed).unwrap();
    assert!(running_log.wait().unwrap().success());
    assert!(printed == expected);
    // Far below the time after which the old process would have gone on.
    assert!(longest < Duration::from_secs(4), "{longest:?}");

    // The last process knows what the kernel knows: it tells it of a new snapshot.
    repo.write("README.md", b"after the hand-over\n");
    let commit = repo.commit("after the hand-over");
    repo.push();
    wait_until("the mount shows the push", || {
        git(&mounted, &["rev-parse", "HEAD"]).trim() == commit
    });
    assert_eq!(
        fs::read(mounted.join("README.md")).unwrap(),
        b"after the hand-over\n"
    );
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
    drop((open, pack, shell, shell_in_bind, bind));
    let unmounted = run(&["umount", &mount.point.display().to_string()]);
    assert!(unmounted.status.success(), "{unmounted:?}");
    assert!(!mount.is_mounted());
}

#[test]
fn a_mount_is_taken_over_without_the_daemon() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mut mount = site.mount(&daemon.url());
    let mounted = mount.repo("local/project");
    let expected = git(&mounted, &["log", "-p"]);
    drop(daemon);

    mount.replace();

    assert!(git(&mounted, &["log", "-p"]) == expected);
    assert_eq!(git(&mounted, &["status", "--porcelain"]), "");
}

#[test]
fn only_the_user_who_mounted_replaces_the_process() {
    if !can_mount() {
        return;
    }
    // Users other than root mount with it.
    if Command::new("fusermount3").arg("-V").output().is_err() {
        println!("skipped: no fusermount3");
        return;
    }
    let site = Site::default();
    let stranger = OtherUser::new(&site);
    // `fusermount3` mounts only for users who have a name.
    let user = stranger.with_uid(NOBODY);
    site.repo_with_history("project");
    let daemon = site.daemon();
    let point = user.tmp.join("mnt");
    fs::create_dir(&point).unwrap();
    chown(&point, Some(NOBODY), Some(NOBODY)).unwrap();
    let text = point.display().to_string();
    let options = format!("cache_dir={}", user.tmp.join("cache").display());
    let pid = || {
        let (_, status) = user.run(&["status", "--json"], &point);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["mounts"][0]["pid"].as_u64().unwrap()
    };
    let replace = ["mount", "--replace", &text];
    let mount = ["mount", "-o", &options, &daemon.url(), &text];
    assert_eq!(user.run_plain(&mount), (Some(0), String::new()));
    let mut shell = Shell::start(user.own(&mut Command::new("sh")));
    let inside = format!("cd {text}/local/project && head -c 9 README.md; echo");
    assert_eq!(shell.ask(&inside), "# version");
    let before = pid();

    let (of_stranger, refused) = stranger.run_plain(&replace);
    let root = run(&replace);
    assert_eq!(pid(), before);
    let replaced = user.run_plain(&replace);

    assert_eq!(of_stranger, Some(3), "{refused}");
    assert_eq!(root.status.code(), Some(3), "{}", said(&root));
    assert_eq!(replaced, (Some(0), String::new()));
    assert_ne!(pid(), before);
    assert_eq!(shell.ask("head -c 9 README.md; echo"), "# version");
    assert_eq!(shell.ask("ls src | wc -l"), "7");
    let server = Pid::from_raw(i32::try_from(pid()).unwrap()).unwrap();
    kill_process(server, Signal::KILL).unwrap();
    assert_eq!(shell.ask("head -c 9 README.md; echo"), "# version");
    wait_until("another process answers", || {
        let (_, status) = user.run(&["status"], &point);
        status.contains("local/project")
    });
    drop(shell);
    assert_eq!(user.run_plain(&["umount", &text]).0, Some(0));
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
}

#[test]
fn remount_starts_a_new_process_in_the_background() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mut mount = site.mount(&daemon.url());
    let readme = File::open(mount.repo("local/project").join("README.md")).unwrap();
    let helper = site.path().join("mount.cachewfs");
    std::os::unix::fs::symlink(cachewfs_tests::binary("cachewfs"), &helper).unwrap();
    let remount = |options: &str| {
        let point = mount.point.display().to_string();
        let arguments = [&daemon.url(), &point, "-o", options, "-t", "cachewfs"];
        Command::new(&helper).args(arguments).output().unwrap()
    };

    let refused = remount("remount,rw,allow_other");
    // As mount(8) adds them from the mount table.
    let of_the_table = "ro,nosuid,nodev,noatime,user_id=0,group_id=0";
    let remounted = remount(&format!("remount,{of_the_table},read_timeout=7s"));

    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("allow_other"), "{stderr}");
    assert!(remounted.status.success(), "{remounted:?}");
    assert_eq!(mount.wait(), Some(0));
    let mut bytes = [0; 9];
    readme.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"# version");
    drop(readme);
    let unmounted = run(&["umount", &mount.point.display().to_string()]);
    assert!(unmounted.status.success(), "{unmounted:?}");
}
