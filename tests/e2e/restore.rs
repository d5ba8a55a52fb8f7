//! `cachewfs restore`: a complete clone on local disk, without a mount.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use cachewfs_tests::{
    DaemonProcess, Fault, Link, Proxy, RecordingProxy, Site, SmallDisk, assert_index_checksum,
    binary, git, http_request, run, said, try_git, wait_until, write_file,
};
use rustix::process::{Pid, Signal, kill_process};

/// Starts `cachewfs restore` of `local/project`, without the fetch from upstream.
pub(crate) fn start(daemon: &str, target: &Path, options: &[&str]) -> Child {
    Command::new(binary("cachewfs"))
        .args(["restore", "--no-fetch", "--daemon", daemon])
        .args(options)
        .arg("local/project")
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn restore(daemon: &str, target: &Path, options: &[&str]) -> Output {
    start(daemon, target, options).wait_with_output().unwrap()
}

pub(crate) fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// Returns the length of the published checkout archive, once there is one.
pub(crate) fn archive_len(daemon: &DaemonProcess) -> u64 {
    let stable = ("GET", "/git/local/project/snapshot.tar.zst");
    let mut len = None;
    wait_until("a snapshot is published", || {
        let range = [("Range", "bytes=-1")];
        let answer = http_request(daemon.address(), stable, &range, Duration::from_secs(5));
        let Ok(answer) = answer else { return false };
        let total = answer.header("content-range").rsplit('/').next();
        len = total.and_then(|total| total.parse().ok());
        answer.status == 206
    });
    len.unwrap()
}

/// Returns the staging directory of a restore to `target`.
pub(crate) fn staging(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap().to_string_lossy();
    target.with_file_name(format!(".{name}.cachewfs-restore"))
}

/// Returns all files below `directory` but those of `.git`: the path, and the mode with the bytes
/// or the link's target.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                if path.file_name().unwrap() != ".git" {
                    directories.push(path);
                }
                continue;
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                target.as_os_str().as_encoded_bytes().to_vec()
            } else {
                std::fs::read(&path).unwrap()
            };
            found.insert(path, (metadata.mode(), content));
        }
    }
    found
}

/// Returns how many bytes of disk the files with content in a cache take. They are sparse.
fn allocated(cache: &Path) -> u64 {
    let shards = std::fs::read_dir(cache.join("v1")).into_iter().flatten();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).into_iter());
    let files = files.flatten().map(|file| file.unwrap());
    let files = files.filter(|file| file.path().extension().is_some_and(|end| end == "data"));
    files
        .map(|file| file.metadata().map_or(0, |data| data.blocks() * 512))
        .sum()
}

pub(crate) fn relative(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let strip = |path: &Path| path.strip_prefix(directory).unwrap().to_owned();
    let files = files(directory).into_iter();
    files.map(|(path, file)| (strip(&path), file)).collect()
}

#[test]
fn a_restored_clone_is_that_of_git() {
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    // A large file is a segment of its own.
    repo.write("large", &vec![7; 9 << 20]);
    repo.commit("Add a large file");
    repo.push();
    let daemon = site.daemon();
    let clone = site.path().join("restored");

    let output = restore(&daemon.url(), &clone, &[]);

    assert_success(&output);
    let plain = site.plain_clone(&repo, "clone");
    assert_eq!(relative(&clone), relative(&plain));
    for looking in [
        &["status", "--porcelain", "--branch"][..],
        &["for-each-ref"],
        &["symbolic-ref", "HEAD"],
        &["symbolic-ref", "refs/remotes/origin/HEAD"],
        &["log", "--oneline", "--all"],
        &["ls-files", "--stage"],
        &["config", "--get-regexp", "^branch|^remote.origin.fetch"],
    ] {
        assert_eq!(git(&clone, looking), git(&plain, looking), "{looking:?}");
    }
    let url = format!("file://{}", repo.upstream.display());
    assert_eq!(git(&clone, &["remote", "get-url", "origin"]).trim(), url);
    let fsck = try_git(&clone, &["fsck", "--full", "--strict"]);
    assert!(fsck.status.success(), "{}", said(&fsck));
    assert_index_checksum(&clone.join(".git"));
    assert!(!clone.join(".git/objects/info/alternates").exists());
    assert!(!staging(&clone).exists());

    // It needs no daemon, and is worked in as in every clone.
    drop(daemon);
    git(&clone, &["switch", "-q", "-c", "work"]);
    std::fs::remove_file(clone.join("large")).unwrap();
    git(&clone, &["commit", "-q", "-a", "-m", "Remove a file"]);
    git(&clone, &["push", "-q", "origin", "work"]);
    git(&clone, &["gc", "-q"]);
    let again = restore("http://127.0.0.1:1", &plain, &[]);
    assert!(said(&again).contains("not empty"), "{}", said(&again));
}

#[test]
fn it_ends_at_the_state_of_upstream_unless_that_is_left_out() {
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    // The daemon doesn't look at upstream again.
    let keys = "fetch_interval = \"1h\"\n";
    let directory = site.path().join("daemon");
    let daemon = DaemonProcess::start_with_config(&directory, &site.upstreams(), (keys, ""));
    let url = format!("{}/git/local/project", daemon.url());
    archive_len(&daemon);
    let published = git(&repo.upstream, &["rev-parse", "main"]);
    repo.write("newer", b"newer");
    let newest = repo.commit("Add a newer file");
    repo.push();
    let [old, new] = ["old", "new"].map(|name| site.path().join(name));

    assert_success(&restore(&daemon.url(), &old, &[]));
    assert_success(&run(&["restore", &url, &new.display().to_string()]));

    assert_eq!(git(&old, &["rev-parse", "HEAD"]), published);
    assert_eq!(git(&new, &["rev-parse", "HEAD"]).trim(), newest.trim());
    assert_eq!(std::fs::read(new.join("newer")).unwrap(), b"newer");
    let state = ["status", "--porcelain", "--branch"];
    assert_eq!(git(&new, &state), "## main...origin/main\n");

    // Without upstream, the snapshot is there, and the command says what is missing.
    std::fs::rename(&repo.upstream, site.path().join("gone")).unwrap();
    let target = site.path().join("offline");
    let offline = run(&["restore", &url, &target.display().to_string()]);
    assert_eq!(offline.status.code(), Some(1));
    assert!(said(&offline).contains("git fetch"), "{}", said(&offline));
    assert_eq!(git(&target, &["rev-parse", "HEAD"]), published);
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
}

#[test]
fn a_bare_restore_is_a_mirror() {
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    let mirror = site.path().join("mirror.git");

    assert_success(&restore(&daemon.url(), &mirror, &["--bare"]));

    let refs = ["for-each-ref", "refs/heads", "refs/tags"];
    assert_eq!(git(&mirror, &refs), git(&repo.upstream, &refs));
    assert!(try_git(&mirror, &["fsck", "--full"]).status.success());
    git(&mirror, &["fetch", "-q"]);
    assert_eq!(
        git(&mirror, &["rev-parse", "--is-bare-repository"]),
        "true\n"
    );
}

#[test]
fn a_killed_restore_fetches_nothing_twice() {
    let site = Site::default();
    site.repo_of_files("project", (200, 60 << 10));
    let daemon = site.daemon();
    archive_len(&daemon);
    let target = site.path().join("restored");
    let whole = RecordingProxy::start(daemon.address());
    assert_success(&restore(&whole.url(), &site.path().join("whole"), &[]));
    let total = whole.answer_bytes();
    // Slow enough to be killed in the middle.
    let link = Link::start(daemon.address(), 4 << 20, Duration::ZERO);
    let slow = format!("http://{}", link.address());

    let kept = || allocated(&staging(&target).join("cache"));

    for signal in [Signal::KILL, Signal::INT] {
        let before = kept();
        let mut restoring = start(&slow, &target, &[]);
        wait_until("this process has fetched a part", || {
            kept() > before + total / 8
        });
        let pid = i32::try_from(restoring.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
        let ended = if signal == Signal::INT {
            restoring.wait_with_output().unwrap()
        } else {
            restoring.wait().unwrap();
            continue;
        };
        assert_eq!(ended.status.code(), Some(1));
        assert!(said(&ended).contains("same command"), "{}", said(&ended));
    }
    assert!(!target.exists());
    let proxy = RecordingProxy::start(daemon.address());
    let there = kept();
    assert_success(&restore(&proxy.url(), &target, &[]));

    // Content of random bytes is as long as its chunks. The rest is tables, headers, the TOC, and
    // what each of the eight requests was writing when its process was killed.
    let fetched = proxy.answer_bytes();
    let missing = total.saturating_sub(there);
    assert!(
        fetched < missing + (4 << 20),
        "{fetched} bytes were fetched, {missing} of {total} were missing"
    );
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
    assert!(try_git(&target, &["fsck", "--full"]).status.success());
}

#[test]
fn wrong_bytes_and_broken_connections_are_fetched_again() {
    let site = Site::default();
    let repo = site.repo_of_files("project", (20, 200 << 10));
    let daemon = site.daemon();
    archive_len(&daemon);
    let (broken, good) = (
        Proxy::start(daemon.address()),
        Proxy::start(daemon.address()),
    );
    let both = format!("{},{}", broken.url(), good.url());
    let plain = site.plain_clone(&repo, "clone");

    for fault in [Fault::CorruptEvery(100_000), Fault::CutAfter(300_000)] {
        broken.set(fault);
        let target = site.path().join(format!("{fault:?}"));

        assert_success(&restore(&both, &target, &[]));

        assert_eq!(relative(&target), relative(&plain));
        assert!(try_git(&target, &["fsck", "--full"]).status.success());
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount("4m") else {
        return;
    };
    let site = Site::default();
    site.repo_of_files("project", (100, 60 << 10));
    let daemon = site.daemon();
    archive_len(&daemon);
    let target = disk.path().join("restored");

    let full = restore(&daemon.url(), &target, &[]);

    assert_eq!(full.status.code(), Some(1));
    assert!(said(&full).contains("No space left"), "{}", said(&full));
    assert!(said(&full).contains("make room"), "{}", said(&full));
    assert!(!target.exists());
    disk.resize("60m");
    assert_success(&restore(&daemon.url(), &target, &[]));
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
}

#[test]
fn errors_name_the_next_step_and_leave_nothing() {
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let target = site.path().join("restored").display().to_string();
    for (arguments, code, expected) in [
        (vec!["local/project"], 2, "CACHEWFS_DAEMON"),
        (vec!["--daemon", "h:1", "local/project"], 2, "http://"),
        (
            vec!["--daemon", "http://127.0.0.1:1", "local/project"],
            1,
            "can't reach",
        ),
        (
            vec!["--daemon", &daemon.url(), "local/absent"],
            4,
            "check its spelling",
        ),
    ] {
        let output = run(&[&["restore"], &arguments[..], &[&target]].concat());

        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(expected), "{}", said(&output));
        assert!(!Path::new(&target).exists());
        assert!(!staging(Path::new(&target)).exists(), "{arguments:?}");
    }
}

#[test]
fn with_a_cache_the_second_restore_costs_the_change() {
    let site = Site::default();
    // A large file is a segment of its own, and could be a hard link.
    let mut repo = site.repo_of_files("project", (50, 60 << 10));
    repo.write("large", &vec![7; 9 << 20]);
    repo.commit("Add a large file");
    repo.push();
    let daemon = site.daemon();
    let upstream = repo.upstream.clone();
    let total = archive_len(&daemon);
    let cache = site.path().join("cache").display().to_string();
    let restored = |name: &str| {
        let target = site.path().join(name);
        let proxy = RecordingProxy::start(daemon.address());
        let wanted = format!("main={}", git(&upstream, &["rev-parse", "main"]).trim());
        let options = ["--cache", &cache, "--ref", &wanted];
        assert_success(&restore(&proxy.url(), &target, &options));
        assert_eq!(git(&target, &["status", "--porcelain"]), "");
        assert!(try_git(&target, &["fsck", "--full"]).status.success());
        (target, proxy.answer_bytes())
    };
    let (first, _) = restored("first");
    // Must not change the cache.
    let edited = std::fs::File::options()
        .append(true)
        .open(first.join("large"));
    edited.unwrap().write_all(b"more").unwrap();
    repo.write("small", b"small");
    repo.commit("Add a small file");
    repo.push();

    let (second, fetched) = restored("second");

    assert_eq!(std::fs::read(second.join("small")).unwrap(), b"small");
    assert_eq!(
        std::fs::metadata(second.join("large")).unwrap().len(),
        9 << 20
    );
    assert!(fetched < total / 20, "{fetched} of {total} were fetched");
}

#[test]
fn a_commit_and_a_ref_are_waited_for() {
    let site = Site::default();
    let mut repo = site.repo_with_history("project");
    let keys = "fetch_interval = \"1h\"\n";
    let directory = site.path().join("daemon");
    let daemon = DaemonProcess::start_with_config(&directory, &site.upstreams(), (keys, ""));
    archive_len(&daemon);
    repo.write("newer", b"newer");
    let newest = repo.commit("Add a newer file").trim().to_owned();
    let target = site.path().join("restored");
    let wanted = ["--commit", &newest, "--ref", &format!("main={newest}")];
    let proxy = RecordingProxy::start(daemon.address());

    // The daemon's upstream doesn't have the commit yet.
    let restoring = start(&proxy.url(), &target, &wanted);
    let asked = || {
        proxy
            .requests()
            .iter()
            .any(|head| head.contains("ensure-refs"))
    };
    wait_until("the daemon was asked", || {
        asked() && proxy.count_answers(200) > 0
    });
    repo.push();
    let output = restoring.wait_with_output().unwrap();

    assert_success(&output);
    assert_eq!(git(&target, &["rev-parse", "HEAD"]).trim(), newest);
    // The daemon keeps a commit for a while that upstream has dropped. No ref reaches it then.
    git(&repo.work, &["reset", "-q", "--hard", "HEAD^"]);
    repo.write("other", b"other");
    repo.commit("Take another way");
    git(&repo.work, &["push", "-q", "-f", "origin", "main"]);
    let main = format!("main={}", git(&repo.work, &["rev-parse", "HEAD"]).trim());
    let dropped = ["--commit", &newest, "--ref", &main];
    let output = restore(&daemon.url(), &site.path().join("dropped"), &dropped);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("no published ref"),
        "{}",
        said(&output)
    );
    for bad in [["--commit", "main"], ["--ref", "a..b"]] {
        let output = restore(&daemon.url(), &target.join("x"), &bad);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
}

#[test]
fn programs_get_json() {
    let site = Site::default();
    site.repo_with_history("project");
    let daemon = site.daemon();
    let total = archive_len(&daemon);
    let target = site.path().join("restored");

    let output = restore(&daemon.url(), &target, &["--json"]);

    assert_success(&output);
    assert!(output.stderr.is_empty(), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["repo"], "local/project");
    assert_eq!(report["directory"], target.display().to_string());
    let fetched = report["traffic"]["fetched_bytes"].as_u64().unwrap();
    assert!(fetched > 0 && fetched < total + (64 << 10));
}

/// Serves `file` at any path, until the test ends. It knows no ranges.
fn serve_without_ranges(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.tar.zst", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut lines = BufReader::new(&connection).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let len = file.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
            connection
                .write_all(&[head.as_bytes(), &file].concat())
                .ok();
        }
    });
    url
}

#[test]
fn an_archive_from_anywhere_is_restored() {
    let site = Site::default();
    let repo = site.repo_with_history("project");
    let daemon = site.daemon();
    archive_len(&daemon);
    let stable = ("GET", "/git/local/project/snapshot.tar.zst");
    let timeout = Duration::from_secs(5);
    let archive = http_request(daemon.address(), stable, &[], timeout)
        .unwrap()
        .body;
    let file = site.path().join("a.tar.zst");
    write_file(&file, &archive);
    let plain = site.plain_clone(&repo, "clone");
    let places = [
        file.display().to_string(),
        // The daemon stands for a web server with ranges.
        format!("{}{}", daemon.url(), stable.1),
        serve_without_ranges(archive.clone()),
    ];
    let from = |place: &str, name: &str, options: &[&str]| {
        let target = site.path().join(name).display().to_string();
        let arguments = [
            "restore",
            "--no-fetch",
            "--from",
            place,
            "local/project",
            &target,
        ];
        (run(&[&arguments, options].concat()), site.path().join(name))
    };
    for (number, place) in places.iter().enumerate() {
        let (output, target) = from(place, &format!("restored{number}"), &[]);

        assert_success(&output);
        assert_eq!(relative(&target), relative(&plain));
        assert_eq!(git(&target, &["status", "--porcelain"]), "");
        assert!(try_git(&target, &["fsck", "--full"]).status.success());
    }
    let (output, mirror) = from(&places[0], "mirror.git", &["--bare"]);
    assert_success(&output);
    assert!(try_git(&mirror, &["fsck", "--full"]).status.success());

    // Changed bytes are found: in the segments, and in the TOC before its trailer.
    let toc = archive.windows(4).rposition(|bytes| bytes == b"CTOC");
    let (segments, toc) = (0..archive.len() / 2, toc.unwrap() - 100..toc.unwrap());
    for (range, step) in [(segments, 500), (toc, 100)] {
        let mut wrong = archive.clone();
        for byte in wrong[range].iter_mut().step_by(step) {
            *byte ^= 1;
        }
        write_file(&file, &wrong);
        let (output, target) = from(&places[0], "wrong", &[]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(!target.exists());
    }
    let arguments = ["restore", "--from", &places[1], "local/other"];
    let other = run(&[
        &arguments[..],
        &[&plain.with_file_name("x").display().to_string()],
    ]
    .concat());
    assert_ne!(other.status.code(), Some(0));
}
