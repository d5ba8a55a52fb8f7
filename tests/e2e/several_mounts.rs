//! Several mounts at once: which one a command uses, and repositories that are named by a path. The
//! text of `cachewfs status` on a terminal and in a pipe.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cachewfs_tests::{DaemonProcess, MountProcess, Site, binary, can_mount, git, said, wait_until};
use rustix::process::{Pid, Signal, kill_process};

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

#[test]
fn status_shows_all_mounts_and_no_mount_stops_another() {
    if !can_mount() {
        return;
    }
    let mounts = TwoMounts::start();
    let (first, second) = (&mounts.first, &mounts.second);
    git(first.repo("local/project"), &["log", "-1"]);
    let work = mounts.site.path().join("work");
    let json = || {
        let mut command = mounts.site.cli_with_own_mounts(&work);
        let output = command.args(["status", "--json"]).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |mount: &MountProcess| {
            let mut shown = json["mounts"].as_array().unwrap().iter();
            let point = mount.point.display().to_string();
            shown
                .find(|shown| shown["mount_point"] == point)
                .unwrap()
                .clone()
        };
        (of(first), of(second))
    };
    let process = Pid::from_raw(i32::try_from(second.pid()).unwrap()).unwrap();

    let (of_first, of_second) = json();
    let (code, text) = mounts.run(&work, &["status"]);
    kill_process(process, Signal::STOP).unwrap();
    let ((_, silent), (silent_code, silent_text)) = std::thread::scope(|scope| {
        let text = scope.spawn(|| mounts.run(&work, &["status"]));
        (json(), text.join().unwrap())
    });
    // Its end leaves a dead mount, which the harness unmounts.
    kill_process(process, Signal::KILL).unwrap();
    let (still_running, dead) = json();
    let (dead_code, dead_text) = mounts.run(&work, &["status"]);

    for (shown, mount) in [(&of_first, first), (&of_second, second)] {
        assert_eq!(shown["state"], "running");
        assert_eq!(shown["pid"], mount.pid());
        let line = format!("{} from http://", mount.point.display());
        assert!(text.contains(&line), "{text}");
    }
    assert_eq!(of_first["repos"][0]["repo"], "local/project");
    assert_eq!(silent["state"], "silent", "{silent}");
    assert!(
        silent["next_step"].as_str().unwrap().contains("kill -CONT"),
        "{silent}"
    );
    assert_eq!(still_running["state"], "running");
    assert_eq!(dead["state"], "dead", "{dead}");
    assert_eq!(
        [code, silent_code, dead_code],
        [Some(0); 3],
        "{silent_text}{dead_text}"
    );
    let line = format!("{} is silent: ", second.point.display());
    assert!(silent_text.contains(&line), "{silent_text}");
    let line = format!("{} is dead: ", second.point.display());
    assert!(dead_text.contains(&line), "{dead_text}");
    assert!(
        dead_text.contains("and mount it again: no data is lost"),
        "{dead_text}"
    );
    assert!(dead_text.contains("local/project"), "{dead_text}");
}

#[test]
fn status_fits_its_terminal_and_a_pipe_gets_whole_lines() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_of_files("project", (3, 1000));
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    git(mount.repo("local/project"), &["log", "-1"]);
    drop(daemon);
    wait_until("the mount is offline", || {
        mount.status()["outage"].is_object()
    });
    let on_terminal = |arguments: &str| {
        let program = binary("cachewfs").display().to_string();
        let point = mount.point.display();
        let command = format!("stty cols 70 rows 30; {program} status {arguments} --mount {point}");
        let mut script = Command::new("script");
        script.args(["--quiet", "--command", &command, "/dev/null"]);
        script.stdin(Stdio::null());
        script
    };

    let output = on_terminal("").output().unwrap();
    let detail = on_terminal("local/project").output().unwrap();
    let piped = mount.cli(&["status"]);

    let lines = |output: &Output| {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        // The progress bar on standard error was on the terminal before.
        let (_, text) = text.rsplit_once("\x1b[2K").unwrap_or(("", &text));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for lines in [lines(&output), lines(&detail)] {
        assert!(
            lines.iter().all(|line| line.chars().count() <= 70),
            "{lines:#?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("local/project")),
            "{lines:#?}"
        );
    }
    let detail = lines(&detail);
    let bars = detail.iter().filter_map(|line| {
        let bar = line.split_whitespace().find(|word| word.len() == 20)?;
        let is_bar = bar.chars().all(|character| matches!(character, '#' | '.'));
        is_bar.then(|| (line.split_whitespace().next().unwrap(), bar))
    });
    let bars: Vec<_> = bars.collect();
    assert!(bars.contains(&("refs", "####################")), "{bars:?}");
    // Nothing is hydrated, and nobody has read the files.
    assert!(bars.iter().any(|(_, bar)| bar.ends_with('.')), "{bars:?}");
    let offline = piped
        .lines()
        .find(|line| line.starts_with("offline since 20"));
    assert!(offline.unwrap().len() > 70, "{piped}");
    assert!(!piped.contains('\x1b'), "{piped:?}");

    // Drawn again in its place, with rates, until Ctrl-C, which leaves nothing to restore.
    let mut watching = on_terminal("--watch")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut stdout = BufReader::new(watching.stdout.take().unwrap());
    while !seen.contains("requests/s\x1b[K") {
        let mut line = Vec::new();
        assert!(stdout.read_until(b'\n', &mut line).unwrap() > 0, "{seen}");
        seen.push_str(&String::from_utf8(line).unwrap());
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(seen.matches("\x1b[H").count(), 2, "{seen:?}");
    assert!(seen.contains("now     0 B/s, "), "{seen:?}");
    let modes = ["\x1b[?1049", "\x1b[?25", "\x1b[2J"];
    assert!(!modes.iter().any(|mode| seen.contains(mode)), "{seen:?}");
}

#[test]
fn status_says_which_process_fetched_and_whether_passthrough_is_in_use() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_of_files("project", (2, 300_000));
    let daemon = site.daemon();
    let mount = site.mount_with_options(&daemon.url(), "hydrate=off,no_passthrough");
    let repo = mount.look("local/project");
    let before = mount.traffic("demand_bytes");

    let mut reader = Command::new("cat");
    let mut reader = reader
        .arg(repo.join("0"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(reader.wait().unwrap().success());

    let fetched = mount.traffic("demand_bytes") - before;
    let status = mount.status();
    let processes = status["processes"].as_array().unwrap();
    let of_reader = processes
        .iter()
        .find(|process| process["process"] == reader.id());
    let of_reader = of_reader.unwrap_or_else(|| panic!("{status}"));
    assert_eq!(of_reader["name"], "cat");
    assert_eq!(of_reader["fetched_bytes"], fetched, "{status}");
    assert!(fetched > 60_000, "{status}");
    assert_eq!(status["passthrough"]["is_used"], false);
    let text = mount.cli(&["status"]);
    let line = format!(" requests for cat (process {}), the last ", reader.id());
    assert!(text.contains(&line), "{text}");
    let line = "passthrough is not in use: the mount has the option no_passthrough\n";
    assert!(text.contains(line), "{text}");
}
