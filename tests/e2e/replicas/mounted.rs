//! A workstation that mounts all replicas: git commands in the mount say what they say upstream.

use std::fs;
use std::path::Path;

use cachewfs_tests::{Dice, MountProcess, git, try_git};

use super::counts::Counts;
use super::storm::End;
use super::upstreams::{Upstream, Upstreams};

/// How many repositories are looked at before the mount is made anew, with an empty cache.
const LOOKS: usize = 12;

/// Mounts, looks, and mounts anew until the end.
pub(super) fn look(
    directory: &Path,
    urls: &str,
    (upstreams, dice): (&Upstreams, &mut Dice),
    (counts, end): (&Counts, &End),
) {
    let options = ["hydrate=off", "hydrate=hot"];
    while !end.is_reached() {
        let mount = MountProcess::start(directory, urls, dice.pick::<&str>(&options));
        counts.add("mounts");
        let says = SaysWhyItPanics(&mount);
        for _ in 0..LOOKS {
            if end.is_reached() {
                break;
            }
            compare(&mount, dice.pick(upstreams.all()), dice);
            counts.add("looks into a mount");
        }
        drop(says);
        drop(mount);
        fs::remove_dir_all(directory).unwrap();
    }
}

/// Prints what the mount logged.
struct SaysWhyItPanics<'a>(&'a MountProcess);

impl Drop for SaysWhyItPanics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the mount said:\n{}", self.0.log());
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
        let complaint = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success(), "{name} at {head}: {complaint}");
        assert!(shown.stdout == content, "{name} at {head} is wrong");
        let read = fs::read(mounted.join(name));
        // Another generation may have come between.
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
