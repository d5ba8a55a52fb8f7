//! Checks clones: whether they find the objects that they borrow, and whether they became partial.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::check::quoted;
use super::{Check, Subject};
use crate::borrowing::{BorrowedObjects, alternates, borrowed};
use crate::git;
use crate::mount_table::absolute;

const NAME: &str = "clone";
/// The settings that git writes when it makes a clone partial.
const PARTIAL: &str = r"^(extensions\.partialclone|remote\..*\.(promisor|partialclonefilter))$";

/// Checks the clones that the mounts know, those at `named`, and the one around the current
/// directory.
pub(super) fn check(subject: &Subject, named: &[PathBuf]) -> Vec<Check> {
    let statuses = subject
        .mounts
        .iter()
        .filter_map(|mount| mount.status.as_ref().ok());
    let repos = statuses.flat_map(|status| &status.repos);
    let known = repos.flat_map(|repo| &repo.clones);
    // A clone that was removed stays registered.
    let mut clones: Vec<PathBuf> = known.filter(|clone| clone.is_dir()).cloned().collect();
    clones.extend(named.iter().map(|clone| absolute(clone)));
    clones.extend(git::top_of_work_tree(Path::new(".")));
    clones.sort();
    clones.dedup();
    let mut checks = Vec::new();
    let mut well = 0_usize;
    for clone in &clones {
        let found = check_one(clone);
        well += usize::from(found.is_empty());
        let subject = clone.display().to_string();
        checks.extend(found.into_iter().map(|check| check.of(subject.clone())));
    }
    match (clones.len(), well) {
        (0, _) => checks.push(
            Check::skipped(NAME, "the mounts know no clone")
                .remedy("run this command in a clone, or name it: cachewfs doctor --clone DIR"),
        ),
        (_, 0) => {}
        (_, 1) => checks.push(Check::ok(NAME, "1 clone has its objects")),
        (..) => checks.push(Check::ok(NAME, format!("{well} clones have their objects"))),
    }
    checks
}

fn check_one(clone: &Path) -> Vec<Check> {
    let shown = quoted(&clone.display().to_string());
    let Some((objects, lines)) = alternates(Some(clone)) else {
        let check = Check::wrong(NAME, "git finds no repository there");
        return vec![check.command(format!("git -C {shown} status"))];
    };
    let missing = lines.iter().find(|line| !objects.join(path(line)).is_dir());
    let mut checks = Vec::new();
    if let Some(line) = missing {
        let reason = format!(
            "it borrows objects from {}, which is not there",
            path(line).display()
        );
        let remedy = match borrowed(line, &objects) {
            Some(BorrowedObjects::OfMounted(_)) => {
                "mount it there again. Until then git reports missing objects, and `git fetch` \
                 fetches the whole history"
            }
            _ => "write the right path into .git/objects/info/alternates, or clone again",
        };
        checks.push(Check::wrong(NAME, reason).remedy(remedy));
    }
    let settings = git::settings(clone, PARTIAL);
    if !settings.is_empty() {
        let reason = format!("it has become partial: {}", settings.join(", "));
        let fetch = format!("git -C {shown} fetch --refetch --no-filter");
        let unset = settings.iter().map(|setting| {
            let setting = quoted(setting);
            format!("git -C {shown} config --unset-all {setting}")
        });
        let commands: Vec<_> = std::iter::once(fetch).chain(unset).collect();
        let remedy = "a fetch with --filter did that: git now fetches objects one by one. Fetch \
            all of them, and remove the settings";
        checks.push(
            Check::wrong(NAME, reason)
                .remedy(remedy)
                .command(commands.join(" && ")),
        );
    }
    checks
}

fn path(line: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(line))
}
