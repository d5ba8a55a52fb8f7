//! A workstation that mounts all replicas. Compares git commands in the mount with those in
//! upstream.

use std::fs;
use std::path::Path;

use cachewfs_tests::{Dice, MountProcess, git, try_git};

use super::counts::Counts;
use super::storm::StopSignal;
use super::upstreams::{Upstream, Upstreams};

/// How many repositories are checked before a new mount with an empty cache takes over.
const CHECKS_PER_MOUNT: usize = 12;

/// Mounts, checks repositories in the mount and unmounts, again and again until the stop signal.
pub(super) fn check_mounts(
    directory: &Path,
    urls: &str,
    (upstreams, dice): (&Upstreams, &mut Dice),
    (counts, stop): (&Counts, &StopSignal),
) {
    let options = ["hydrate=off", "hydrate=hot"];
    while !stop.is_set() {
        let mount = MountProcess::start(directory, urls, dice.pick::<&str>(&options));
        counts.add("mounts");
        let prints_log = PrintsLogOnPanic(&mount);
        for _ in 0..CHECKS_PER_MOUNT {
            if stop.is_set() {
                break;
            }
            compare(&mount, dice.pick(upstreams.all()), dice);
            counts.add("checks in a mount");
        }
        drop(prints_log);
        drop(mount);
        fs::remove_dir_all(directory).unwrap();
    }
}

/// Prints the log of a mount when it is dropped in a panic.
struct PrintsLogOnPanic<'a>(&'a MountProcess);

impl Drop for PrintsLogOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the log of the mount:\n{}", self.0.log());
        }
    }
}

fn compare(mount: &MountProcess, upstream: &Upstream, dice: &mut Dice) {
    let mounted = mount.repo(&format!("local/{}", upstream.name));
    let work = &upstream.work;
    let head = git(&mounted, &["rev-parse", "HEAD"]);
    let head = head.trim();
    upstream.assert_was_head(head);
    for command in [
        &["log", "--format=%H %T %an %s", head][..],
        &["ls-tree", "-r", "--full-tree", head],
        &["log", "-2", "--stat", "--patch", head],
    ] {
        assert_eq!(git(&mounted, command), git(work, command), "{command:?}");
    }
    let listed = git(
        work,
        &[
            "ls-tree",
            "-r",
            "--name-only",
            head,
            "dir-0",
            "dir-1",
            "README.md",
        ],
    );
    let names: Vec<_> = listed.lines().collect();
    for _ in 0..2 {
        let name = *dice.pick(&names);
        let content = try_git(work, &["show", &format!("{head}:{name}")]).stdout;
        let shown = try_git(&mounted, &["show", &format!("{head}:{name}")]);
        let stderr = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success(), "{name} at {head}: {stderr}");
        assert!(shown.stdout == content, "{name} at {head} is wrong");
        let read = fs::read(mounted.join(name));
        // The mount may have caught up since: then the file is that of a later commit.
        if git(&mounted, &["rev-parse", "HEAD"]).trim() == head {
            assert!(
                read.unwrap() == content,
                "{name} in the work tree at {head}"
            );
        }
    }
    if dice.below(4) == 0 {
        git(&mounted, &["rev-list", "--objects", "--all", "--quiet"]);
    }
    if dice.below(6) == 0 {
        git(&mounted, &["fsck", "--no-progress"]);
    }
}
