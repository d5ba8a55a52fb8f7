//! Mounts and CLI are safe from other users (sockets, caches) and from text that controls a
//! terminal.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cachewfs_tests::{
    MountProcess, OtherUser, Site, USER, binary, can_mount, git, run, said, wait_up_to,
};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than the interval of `status --watch`, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn others_may_ask_a_mount_only_with_allow_other() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let other_user = OtherUser::new(&site);
    let mount = site.mount("http://127.0.0.1:1");

    let (code, refused) = other_user.run(&["status"], &mount.point);
    drop(mount);
    let mount = site.mount_with_options("http://127.0.0.1:1", "hydrate=off,allow_other");
    let (allowed, status) = other_user.run(&["status"], &mount.point);
    let (_, json) = other_user.run(&["status", "--json"], &mount.point);
    let (pinned, refused_pin) = other_user.run(&["pin", "local/project"], &mount.point);
    let point = mount.point.display().to_string();
    let (replaced, refused_hand_over) = other_user.run_plain(&["mount", "--replace", &point]);

    assert_eq!(code, Some(3), "{refused}");
    assert!(refused.contains("allow_other"), "{refused}");
    assert_eq!(allowed, Some(0), "{status}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["mounts"][0]["processes"], serde_json::json!([]));
    assert_eq!(pinned, Some(1), "{refused_pin}");
    assert!(
        refused_pin.contains("only root and the user"),
        "{refused_pin}"
    );
    assert_eq!(replaced, Some(1), "{refused_hand_over}");
    assert!(
        refused_hand_over.contains("only the user who mounted"),
        "{refused_hand_over}"
    );
}

#[test]
fn a_mount_in_the_foreground_is_unmounted_when_its_terminal_closes() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut mount = site.mount("http://127.0.0.1:1");
    let pid = i32::try_from(mount.status()["pid"].as_i64().unwrap()).unwrap();

    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();

    assert_eq!(mount.wait(), Some(0));
    assert!(!mount.is_mounted());
}

#[test]
fn a_socket_in_a_directory_that_others_may_write_to_is_not_used() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let other_user = OtherUser::new(&site);
    let sockets = other_user.tmp.join(format!("cachewfs-{USER}"));
    let ask = || other_user.run(&["status"], Path::new("/nowhere"));
    fs::create_dir(&sockets).unwrap();

    // Root owns the directory.
    fs::set_permissions(&sockets, Permissions::from_mode(0o777)).unwrap();
    let (foreign_code, foreign) = ask();
    let cache = format!("cache_dir={}", other_user.tmp.join("cache").display());
    let point = site.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let point = point.display().to_string();
    let (mount_code, mount) =
        other_user.run_plain(&["mount", "-f", "-o", &cache, "http://127.0.0.1:1", &point]);
    // The user owns the directory, but all users may write to it.
    chown(&sockets, Some(USER), Some(USER)).unwrap();
    let (open_code, open) = ask();
    // The directory is a symbolic link.
    fs::rename(&sockets, other_user.tmp.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &sockets).unwrap();
    let (link_code, link) = ask();

    assert_eq!([foreign_code, open_code, link_code], [Some(3); 3]);
    assert_eq!(mount_code, Some(1), "{mount}");
    for text in [&foreign, &mount] {
        assert!(text.contains("belongs to another user (uid 0)"), "{text}");
    }
    assert!(open.contains("is open to other users (mode 777)"), "{open}");
    assert!(link.contains("is not a directory"), "{link}");
    for text in [foreign, mount, open, link] {
        assert!(text.contains("XDG_RUNTIME_DIR"), "{text}");
    }
}

#[test]
fn a_cache_of_another_user_is_refused() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let point = site.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let (cache, planted) = (site.path().join("cache"), site.path().join("planted"));
    fs::create_dir(&cache).unwrap();
    chown(&cache, Some(USER), None).unwrap();
    fs::create_dir_all(planted.join("v1")).unwrap();
    chown(planted.join("v1"), Some(USER), None).unwrap();

    for cache in [cache, planted] {
        let option = format!("cache_dir={}", cache.display());
        let point = point.display().to_string();
        let output = run(&["mount", "-f", "-o", &option, "http://127.0.0.1:1", &point]);

        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("belongs to another user (uid 64999)"),
            "{text}"
        );
        assert!(text.contains("-o cache_dir=DIR"), "{text}");
    }
}

/// Answers every request with `answer` for as long as the test runs. Returns the server's base URL.
fn answer_everything_with(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The requests of these tests are short: one read gets a whole one.
            if stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
    url
}

#[test]
fn text_from_a_daemon_cannot_control_the_terminal() {
    if !can_mount() {
        return;
    }
    let message = r"evil\u001b]0;title\u0007\n\u009b2J\u202elive\ncachewfs: all is well";
    let body = format!(r#"{{"error":{{"code":"upstream_denied","message":"{message}"}}}}"#);
    let len = body.len();
    let head = format!("HTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
    let site = Site::default();
    let mount = site.mount(&answer_everything_with(head + &body));
    let point = mount.point.display().to_string();

    let failed = run(&["prefetch", "host/org/repo", "--mount", &point]);
    let table = mount.cli(&["status"]);
    let json = mount.cli(&["status", "--json"]);

    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(!error.contains("\ncachewfs: all is well"), "{error}");
    for text in [&error, &table, &json, &mount.log()] {
        let control_characters = ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'];
        assert!(!text.contains(control_characters), "{text:?}");
    }
    assert!(
        error.contains("evil") && table.contains("evil"),
        "{error}{table}"
    );
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let last_error = status["mounts"][0]["repos"][0]["last_error"]
        .as_str()
        .unwrap();
    assert!(
        last_error.contains("\u{9b}2J\u{202e}live"),
        "{last_error:?}"
    );
}

#[test]
fn a_listing_leaves_out_hosts_that_cannot_be_directory_names() {
    if !can_mount() {
        return;
    }
    let long = "x".repeat(300);
    let hosts = format!(r#"["good.example","a/b","","..","{long}","bad\u0000name"]"#);
    let body = format!(r#"{{"repos":[],"hosts":{hosts}}}"#);
    let len = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
    let site = Site::default();
    let mount = site.mount(&answer_everything_with(head + &body));

    let names = fs::read_dir(&mount.point)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();

    assert_eq!(names, ["good.example"]);
}

/// Starts `cachewfs status --watch`. Returns when it has printed its first line.
fn start_watching(mount: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut watching = Command::new(binary("cachewfs"))
        .args(["status", "--watch", "--mount"])
        .arg(mount)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(watching.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    (watching, output)
}

#[test]
fn status_watch_ends_on_a_signal_or_when_its_output_is_closed() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mount = site.mount("http://127.0.0.1:1");
    let signals = [Signal::TERM, Signal::HUP, Signal::INT];
    let mut signalled = signals.map(|_| start_watching(&mount.point));
    let (mut unread, output) = start_watching(&mount.point);

    drop(output);
    for (signal, (process, _)) in signals.iter().zip(&signalled) {
        let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        kill_process(pid, *signal).unwrap();
    }

    for (signal, (process, _)) in signals.iter().zip(&mut signalled) {
        wait_up_to(PATIENCE, "status --watch ends on a signal", || {
            process.try_wait().unwrap().is_some()
        });
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
    wait_up_to(PATIENCE, "status --watch ends without a reader", || {
        unread.try_wait().unwrap().is_some()
    });
    assert!(unread.wait().unwrap().success());
}

/// Runs git as a user, in a repository of a mount.
fn git_as(uid: u32, repo: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("git")
        .args(options)
        .arg("-C")
        .arg(repo)
        .args(["log", "-1", "--format=%s"])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn a_repository_has_one_owner_for_all_users() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut upstream = site.repo("project");
    upstream.write("file", b"content");
    upstream.commit("first");
    upstream.push();
    let daemon = site.daemon();
    let options = format!("hydrate=off,allow_other,uid={USER},gid={USER}");
    let mount = site.mount_with_options(&daemon.url(), &options);
    for path in [site.path(), &site.path().join("workstation")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let repo = mount.repo("local/project");
    let safe = format!("safe.directory={}", repo.display());

    let owner = || git_as(USER, &repo, &[]);
    let other = || git_as(USER - 1, &repo, &["-c", &safe]);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let asked = (0..20).map(|number| {
            let ask: &(dyn Fn() -> _ + Sync) = if number % 2 == 0 { &owner } else { &other };
            scope.spawn(ask)
        });
        let asked: Vec<_> = asked.collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (refused, text) = git_as(USER - 1, &repo, &[]);

    for (code, text) in outcomes {
        assert_eq!((code, text.trim()), (Some(0), "first"));
    }
    assert_ne!(refused, Some(0), "{text}");
    let bare = mount.repo("local/project.git");
    for path in [repo.clone(), repo.join(".git"), bare] {
        assert_eq!(fs::metadata(path).unwrap().uid(), USER);
    }
    // git's index says that its files belong to root.
    assert_eq!(fs::metadata(repo.join("file")).unwrap().uid(), 0);
    assert_eq!(
        git(&repo, &["-c", "safe.directory=*", "status", "--porcelain"]),
        ""
    );
}

#[test]
fn a_mount_that_is_well_is_never_called_dead() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let shared = OtherUser::new(&site);
    site.repo_with_history("project");
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    assert!(mount.repo("local/project/.git").exists());
    let bound = site.path().join("bound");
    fs::create_dir(&bound).unwrap();
    let repo = mount.repo("local/project");
    rustix::mount::mount_bind(&repo, &bound).unwrap();
    let text = |path: &Path| path.display().to_string();
    let at = |path: &Path, command: &str| {
        let output = run(&[command, "--mount", &text(path)]);
        (output.status.code(), said(&output))
    };

    // The bind mount of a repository stands for its mount, but doesn't end it.
    let (through_bind, status) = at(&bound, "status");
    let ended = run(&["umount", &text(&bound)]);
    // A path without a mount.
    let (nothing, no_mount) = at(site.path(), "status");
    // A mount that answers only its owner.
    let (stranger, denied) = shared.run(&["status"], &mount.point);
    // A mount whose socket is in a directory that this command doesn't know.
    fs::remove_file(control_socket_of(&mount)).unwrap();
    let (hidden, no_socket) = at(&mount.point, "status");

    rustix::mount::unmount(&bound, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(through_bind, Some(0), "{status}");
    assert!(status.contains(&text(&mount.point)), "{status}");
    assert_eq!(ended.status.code(), Some(3), "{}", said(&ended));
    assert!(said(&ended).contains("is a bind mount"), "{}", said(&ended));
    assert!(mount.is_mounted());
    assert_eq!(nothing, Some(3), "{no_mount}");
    assert!(no_mount.contains("no cachewfs mount is at"), "{no_mount}");
    assert_eq!(stranger, Some(3), "{denied}");
    assert!(denied.contains("allow_other"), "{denied}");
    assert_eq!(hidden, Some(3), "{no_socket}");
    assert!(
        no_socket.contains("works, but its control socket"),
        "{no_socket}"
    );
    assert!(!no_socket.contains("unmount"), "{no_socket}");
}

/// Returns the path of the control socket of a mount of root, which has the device's number.
fn control_socket_of(mount: &MountProcess) -> PathBuf {
    let device = fs::metadata(&mount.point).unwrap().dev();
    let name = format!("0-{}.sock", rustix::fs::minor(device));
    Path::new("/run/cachewfs").join(name)
}
