//! A daemon is killed in the middle of each kind of work: nothing is damaged and no garbage stays.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cachewfs_tests::{
    DaemonProcess, GitRepo, Site, bytes_below, git, git_with_input, try_git, wait_until,
};

/// How often a test kills its daemon.
const ROUNDS: u64 = 4;
/// How many bytes each push adds to the repository.
const ROUND_BYTES: usize = 3 << 20;

fn mirror_path(site: &Site) -> PathBuf {
    site.path().join("daemon/data/mirrors/local/project.git")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

fn names_in_tmp(site: &Site) -> Vec<String> {
    names(&site.path().join("daemon/data/tmp"))
}

/// Returns whether there is a process whose command line contains all of `parts`.
fn process_runs(parts: &[&str]) -> bool {
    let is_one = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        parts.iter().all(|part| line.contains(part))
    };
    names(Path::new("/proc")).iter().any(is_one)
}

/// A switch for upstream: while it is closed, upstream sends no packs.
///
/// `git upload-pack` of upstream runs a hook before it packs objects. The hook creates the file
/// `asked`, and waits while the file `closed` exists.
struct Gate(PathBuf);

impl Gate {
    fn create(site: &Site) -> (Self, String) {
        let directory = site.path().join("gate");
        fs::create_dir_all(&directory).unwrap();
        let shown = directory.display();
        let hook = directory.join("hook");
        let script = format!(
            "#!/bin/sh\ntouch {shown}/asked\n\
             while [ -e {shown}/closed ]; do sleep 0.02; done\nexec \"$@\"\n"
        );
        write(&hook, &script);
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let config = directory.join("config");
        let text = format!("[uploadpack]\npackObjectsHook = {}\n", hook.display());
        write(&config, &text);
        let tables = format!("[git]\nconfig_file = \"{}\"\n", config.display());
        (Self(directory), tables)
    }

    fn close(&self) {
        fs::remove_file(self.0.join("asked")).ok();
        write(&self.0.join("closed"), "");
    }

    fn open(&self) {
        fs::remove_file(self.0.join("closed")).unwrap();
    }

    fn wait_until_asked(&self) {
        wait_until("upstream is asked for a pack", || {
            self.0.join("asked").exists()
        });
    }
}

fn write(path: &Path, text: &str) {
    fs::File::create(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// Pushes a commit with a file that doesn't compress. Returns the commit's id.
fn push(repo: &mut GitRepo, number: u64) -> String {
    let mut state = number.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    let bytes: Vec<u8> = noise.take(ROUND_BYTES).collect();
    repo.write("noise", &bytes);
    let commit = repo.commit(&format!("push {number}"));
    repo.push();
    commit
}

fn curl(arguments: &[&str], url: &str) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail"]).args(arguments).arg(url);
    curl.stdout(Stdio::null()).status().unwrap().success()
}

fn snapshot_url(daemon: &DaemonProcess) -> String {
    format!("{}/git/local/project/snapshot.tar.zst", daemon.url())
}

/// Waits until `commit` is published. Panics unless the archive and the mirror are complete and
/// nothing temporary is left.
fn assert_published_and_clean(site: &Site, daemon: &DaemonProcess, commit: &str) {
    let refresh = format!("{}/git/local/project/refresh", daemon.url());
    wait_until("the mirror is up to date", || {
        curl(&["--request", "POST"], &refresh)
            && git(mirror_path(site), &["rev-parse", "main"]).trim() == commit
    });
    let clone = site.path().join("extracted");
    fs::remove_dir_all(&clone).ok();
    fs::create_dir_all(&clone).unwrap();
    let archive = clone.with_extension("tar.zst");
    assert!(curl(
        &["--output", archive.to_str().unwrap()],
        &snapshot_url(daemon)
    ));
    let tar = Command::new("tar")
        .args(["--zstd", "--extract", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&clone)
        .status();
    assert!(tar.unwrap().success());
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).trim(), commit);
    git(&clone, &["fsck", "--strict"]);
    // Retried: `git fsck` doesn't list the packs again if the daemon rolls them up meanwhile.
    wait_until("the mirror is whole", || {
        try_git(&mirror_path(site), &["fsck", "--strict"])
            .status
            .success()
    });
    let is_garbage = |name: &String| {
        let is_part = name.starts_with("tmp_") || name.starts_with(".tmp-");
        is_part || matches!(name.rsplit_once('.'), Some((_, "lock" | "keep")))
    };
    wait_until("nothing is left over", || {
        let packs = names(&mirror_path(site).join("objects/pack"));
        names_in_tmp(site).is_empty() && !packs.iter().any(is_garbage)
    });
}

#[test]
fn in_the_middle_of_a_clone() {
    let site = Site::default();
    let mut repo = site.repo("project");
    let commit = push(&mut repo, 0);
    let (gate, tables) = Gate::create(&site);
    let mut daemon = site.daemon_with_tables(&tables);
    for _ in 0..2 {
        gate.close();
        curl(&["--max-time", "0.5"], &snapshot_url(&daemon));
        gate.wait_until_asked();
        assert!(
            names_in_tmp(&site)
                .iter()
                .any(|name| name.starts_with("clone-"))
        );

        daemon.kill();
        daemon.restart();

        // The killed clone has ended with all its processes, and left nothing that looks like a
        // mirror.
        let data = site.path().join("daemon/data").display().to_string();
        assert!(!process_runs(&["git", &data]));
        assert!(names_in_tmp(&site).is_empty() && !mirror_path(&site).exists());
        gate.open();
    }

    curl(&[], &snapshot_url(&daemon));
    assert_published_and_clean(&site, &daemon, &commit);
}

#[test]
fn in_the_middle_of_an_update() {
    let site = Site::default();
    let mut repo = site.repo("project");
    let first = push(&mut repo, 0);
    let (gate, tables) = Gate::create(&site);
    let mut daemon = site.daemon_with_tables(&tables);
    curl(&[], &snapshot_url(&daemon));
    assert_published_and_clean(&site, &daemon, &first);
    for round in 1..=ROUNDS {
        gate.close();
        let commit = push(&mut repo, round);
        gate.wait_until_asked();

        daemon.kill();
        gate.open();
        daemon.restart();

        assert_published_and_clean(&site, &daemon, &commit);
    }
}

/// Pushes until `condition` holds, each time after `prepare`. Kills the daemon at that moment.
/// Returns the last commit.
fn kill_when(
    repo: &mut GitRepo,
    daemon: &mut DaemonProcess,
    (number, condition): (&mut u64, &dyn Fn() -> bool),
    prepare: &dyn Fn(u64),
) -> String {
    for _ in 0..20 {
        *number += 1;
        prepare(*number);
        let commit = push(repo, *number);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            if condition() {
                daemon.kill();
                return commit;
            }
            std::thread::yield_now();
        }
    }
    panic!("the condition never held in 20 pushes");
}

#[test]
fn in_the_middle_of_a_publish() {
    let site = Site::default();
    let mut repo = site.repo("project");
    let first = push(&mut repo, 0);
    let mut daemon = site.daemon();
    curl(&[], &snapshot_url(&daemon));
    assert_published_and_clean(&site, &daemon, &first);
    let mut number = 0;
    for _ in 0..ROUNDS {
        let is_publishing = || {
            names_in_tmp(&site)
                .iter()
                .any(|name| name.starts_with("publish-"))
        };
        let commit = kill_when(
            &mut repo,
            &mut daemon,
            (&mut number, &is_publishing),
            &|_| {},
        );
        daemon.restart();

        assert_published_and_clean(&site, &daemon, &commit);
    }
}

/// Adds more packs to `mirror` than the daemon leaves there without rolling them up.
fn add_small_packs(mirror: &Path, round: u64) {
    for number in 0..=20 {
        let content = format!("{round} {number}");
        let blob = git_with_input(
            mirror,
            &["hash-object", "-w", "--stdin"],
            content.as_bytes(),
        );
        git_with_input(mirror, &["pack-objects", "-q", "objects/pack/pack"], &blob);
    }
}

#[test]
fn in_the_middle_of_a_repack() {
    let site = Site::default();
    let mut repo = site.repo("project");
    let first = push(&mut repo, 0);
    // Ten times this interval is the shortest time between two repacks.
    let keys = ("fetch_interval = \"100ms\"\n", "");
    let directory = site.path().join("daemon");
    let mut daemon = DaemonProcess::start_with_config(&directory, &site.upstreams(), keys);
    curl(&[], &snapshot_url(&daemon));
    assert_published_and_clean(&site, &daemon, &first);
    let mut number = 0;
    for _ in 0..ROUNDS {
        let path = mirror_path(&site).display().to_string();
        let is_repacking = || process_runs(&["git", "repack", &path]);
        let commit = kill_when(
            &mut repo,
            &mut daemon,
            (&mut number, &is_repacking),
            &|number| add_small_packs(&mirror_path(&site), number),
        );
        daemon.restart();

        assert_published_and_clean(&site, &daemon, &commit);
    }

    let packs = || bytes_below(&mirror_path(&site).join("objects"));
    let needed = (number + 1) * ROUND_BYTES as u64;
    wait_until("there is no garbage", || packs() < needed * 3 / 2);
    wait_until("the index over all packs is right", || {
        let verify = try_git(&mirror_path(&site), &["multi-pack-index", "verify"]);
        verify.status.success()
    });
}
