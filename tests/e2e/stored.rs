//! The bytes on this machine: `pins`, `forget`, `verify`, and `prefetch` of a part.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cachewfs_tests::{
    Dice, MountProcess, Site, can_mount, git, git_command, run, said, wait_until,
};
use serde_json::Value;

/// Runs `cachewfs` for a mount. Returns its exit code and what it printed.
fn cli(mount: &MountProcess, arguments: &[&str]) -> (Option<i32>, String) {
    let point = mount.point.display().to_string();
    let output = run(&[arguments, &["--mount", &point]].concat());
    (output.status.code(), said(&output))
}

fn json(mount: &MountProcess, arguments: &[&str]) -> Value {
    serde_json::from_str(&mount.cli(&[arguments, &["--json"]].concat())).unwrap()
}

/// Returns the files in the cache of a mount, with their contents.
fn cached_files(mount: &MountProcess) -> Vec<PathBuf> {
    let status = mount.status();
    let root = Path::new(status["cache_dir"].as_str().unwrap()).join("v1");
    let shards = std::fs::read_dir(root)
        .unwrap()
        .map(|shard| shard.unwrap().path());
    let shards = shards.filter(|shard| shard.is_dir());
    let files = shards.flat_map(|shard| std::fs::read_dir(shard).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|kind| kind == "data"))
        .collect()
}

#[test]
fn a_pinned_repository_is_listed_and_forgotten_only_by_force() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    site.repo_of_files("project", (20, 100_000));
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let (_, none) = cli(&mount, &["pins"]);
    assert_eq!(none, "No repository is pinned.\n");
    mount.cli(&["pin", "local/project"]);

    let pins = json(&mount, &["pins"])["pins"].clone();
    let (_, table) = cli(&mount, &["pins"]);
    assert_eq!(pins[0]["repo"], "local/project");
    assert_eq!(pins[0]["cached_bytes"], pins[0]["total_bytes"]);
    assert!(
        pins[0]["total_bytes"].as_u64().unwrap() > 2_000_000,
        "{pins}"
    );
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(
        rows[1].contains("local/project") && rows[1].ends_with("complete"),
        "{table}"
    );

    let (code, refused) = cli(&mount, &["forget", "local/project"]);
    let expected = "can't forget local/project: it is pinned, and --force unpins it\n";
    assert_eq!(code, Some(1));
    assert!(refused.ends_with(expected), "{refused}");

    let before = mount.status()["cache_bytes"].as_u64().unwrap();
    let forgotten = json(&mount, &["forget", "--force", "local/project"]);
    let after = mount.status()["cache_bytes"].as_u64().unwrap();

    let freed = forgotten["freed_bytes"].as_u64().unwrap();
    assert!(freed > 2_000_000, "{forgotten}");
    assert!(after < before / 10, "{after} of {before}");
    assert!(cached_files(&mount).is_empty());
    assert_eq!(json(&mount, &["pins"])["pins"], serde_json::json!([]));
    // It is fetched again.
    assert_eq!(
        mount.cli(&["forget", "local/project"]),
        "Forgot local/project: freed 0 B\n"
    );
    assert_eq!(
        git(mount.repo("local/project"), &["status", "--porcelain"]),
        ""
    );
    git(mount.repo("local/project"), &["log", "-p"]);
    let (code, _) = cli(&mount, &["forget", "local/absent"]);
    assert_eq!(code, Some(4));
}

#[test]
fn what_a_fork_shares_and_what_is_open_is_not_forgotten() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_of_files("project", (20, 100_000));
    let fork = site.upstreams().join("fork").display().to_string();
    let upstream = repo.upstream.display().to_string();
    git(site.path(), &["clone", "-q", "--bare", &upstream, &fork]);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    for name in ["local/project", "local/fork"] {
        mount.cli(&["prefetch", "--all", name]);
    }
    let pack = std::fs::read_dir(mount.packs("local/project")).unwrap();
    let pack = pack.map(|entry| entry.unwrap().path());
    let pack = pack
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let open = std::fs::File::open(pack).unwrap();

    let (code, refused) = cli(&mount, &["forget", "local/project"]);
    assert_eq!(code, Some(1));
    assert!(
        refused.contains("a program uses 1 of its files"),
        "{refused}"
    );
    drop(open);
    // The kernel tells the mount of a close afterwards.
    wait_until("the repository is forgotten", || {
        cli(&mount, &["forget", "local/project"]).0 == Some(0)
    });

    let fetched = mount.traffic("fetched_bytes");
    git(mount.repo("local/fork"), &["fsck"]);
    assert_eq!(mount.traffic("fetched_bytes"), fetched);
}

#[test]
fn damage_in_the_cache_and_in_a_clone_is_found() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo_of_files("project", (20, 100_000));
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let clone = site.path().join("clone");
    let directory = clone.display().to_string();
    mount.cli(&["clone", "local/project", &directory]);
    mount.cli(&["prefetch", "--all", "local/project"]);
    git(&clone, &["commit", "-q", "--allow-empty", "-m", "own"]);

    let (code, clean) = cli(&mount, &["verify", "local/project"]);
    assert_eq!(code, Some(0), "{clean}");
    for options in [&[][..], &["--full"]] {
        let (code, clean) = cli(&mount, &[&["verify", &directory], options].concat());
        assert_eq!(code, Some(0), "{clean}");
        assert!(clean.contains("git finds nothing wrong"), "{clean}");
    }

    // One byte on the disk of the cache.
    let files = cached_files(&mount).into_iter();
    let largest = files
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    let file = std::fs::File::options().write(true).open(&largest).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    let (code, found) = cli(&mount, &["verify", "local/project"]);
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("of wrong bytes in the cache"), "{found}");
    let report = {
        let (_, said) = cli(&mount, &["verify", "local/project", "--json"]);
        serde_json::from_str::<Value>(&said).unwrap()
    };
    // It has been dropped.
    assert_eq!(report["repositories"][0]["damaged"], serde_json::json!([]));
    mount.cli(&["prefetch", "--all", "local/project"]);
    bytes[1000] ^= 1;
    assert!(std::fs::read(&largest).unwrap() == bytes);

    // A commit of the clone is away.
    let own = git(&clone, &["rev-parse", "HEAD"]);
    let (shard, name) = own.trim().split_at(2);
    std::fs::remove_file(clone.join(".git/objects").join(shard).join(name)).unwrap();
    let (code, found) = cli(&mount, &["verify", &directory]);
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("missing objects: "), "{found}");
    let plain = repo.work.display().to_string();
    let (code, found) = cli(&mount, &["verify", &plain]);
    assert_eq!(code, Some(1));
    assert!(found.contains("is in no clone that borrows"), "{found}");
}

#[test]
fn the_files_below_some_paths_are_prefetched() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let mut repo = site.repo("project");
    for number in 0..80_u64 {
        let content = Dice::new(number).noise(128 << 10);
        repo.write(format!("d{}/f{number}", number % 10), &content);
    }
    repo.commit("files");
    repo.push();
    let files_len = 80 * (128 << 10);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());
    let paths = ["--path", "d3", "--path", "d4/f4"];

    let report = json(
        &mount,
        &[&["prefetch", "local/project"], &paths[..]].concat(),
    );

    let fetched = report["fetched_bytes"].as_u64().unwrap();
    assert!(fetched >= 9 * (128 << 10), "{fetched}");
    assert!(fetched < files_len / 2, "{fetched} of {files_len}");
    mount.look("local/project");
    let before = mount.traffic("fetched_bytes");
    for name in ["d3/f3", "d3/f73", "d4/f4"] {
        let read = std::fs::read(mount.repo("local/project").join(name)).unwrap();
        assert!(read == std::fs::read(repo.work.join(name)).unwrap());
    }
    assert_eq!(mount.traffic("fetched_bytes"), before);
}

#[test]
fn the_history_since_a_date_is_prefetched() {
    if !can_mount() {
        return;
    }
    let site = Site::default();
    let repo = site.repo("project");
    let commit = |message: &str, date: &str| {
        git(&repo.work, &["add", "-A"]);
        let mut command = git_command(&repo.work);
        command.env("GIT_COMMITTER_DATE", date);
        command.args(["commit", "-q", "-m", message]);
        assert!(command.status().unwrap().success());
    };
    for number in 0..4 {
        repo.write("large", &Dice::new(number).noise(2 << 20));
        commit("old", "2020-01-01T00:00:00Z");
    }
    repo.write("large", b"small now");
    commit("old", "2020-01-02T00:00:00Z");
    repo.write("new", &Dice::new(99).noise(128 << 10));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    commit("new", &format!("@{now} +0000"));
    git(&repo.work, &["push", "-q", "origin", "main"]);
    let daemon = site.daemon();
    let mount = site.mount(&daemon.url());

    let report = json(&mount, &["prefetch", "local/project", "--since", "2w"]);

    let fetched = report["fetched_bytes"].as_u64().unwrap();
    assert!(fetched > 128 << 10, "{fetched}");
    assert!(fetched < 1 << 20, "{fetched}");
    let before = mount.traffic("fetched_bytes");
    let shown = ["log", "-p", "--since=2.weeks", "--format=%s"];
    assert!(git(mount.repo("local/project"), &shown).starts_with("new\n"));
    assert_eq!(mount.traffic("fetched_bytes"), before);
    for (when, code) in [("nonsense", 2), ("2.days.ago", 0), ("2019-01-01", 0)] {
        let (found, text) = cli(&mount, &["prefetch", "local/project", "--since", when]);
        assert_eq!(found, Some(code), "{when}: {text}");
    }
    assert!(mount.traffic("fetched_bytes") > 8 << 20);
}
