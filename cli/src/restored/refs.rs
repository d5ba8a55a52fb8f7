//! Which refs of a clone follow a new snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::git::Call;

/// Ids by the full name of the ref.
pub(super) type Refs = BTreeMap<Vec<u8>, String>;

/// The state of all refs at three moments.
#[derive(Debug)]
pub(super) struct RefStates<'a> {
    /// As the last restore wrote them.
    pub(super) old: &'a Refs,
    /// As they are in the clone.
    pub(super) local: &'a Refs,
    /// As the snapshot has them.
    pub(super) new: &'a Refs,
}

/// The changes that `git update-ref` makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RefChanges {
    /// Each with the id that it has now.
    deleted: BTreeMap<Vec<u8>, String>,
    /// Each with the id that it has now, if it is there, and with the new one.
    set: BTreeMap<Vec<u8>, (Option<String>, String)>,
}

/// Parses a `packed-refs`.
pub(super) fn parse(packed: &[u8]) -> Refs {
    let lines = packed.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b"^"));
    lines
        .filter_map(|line| {
            let space = line.iter().position(|&byte| byte == b' ')?;
            let id = String::from_utf8_lossy(line.get(..space)?).into_owned();
            Some((line.get(space + 1..)?.to_vec(), id))
        })
        .collect()
}

/// Returns the refs of the repository in `directory`, without symbolic ones.
pub(super) async fn local(directory: &Path) -> Result<Refs> {
    // The last field is empty, unless the ref is a symbolic one.
    let arguments = ["--format=%(objectname) %(refname)%00%(symref)"];
    let said = Call::new(directory, "for-each-ref", &arguments)
        .output()
        .await?;
    let lines = said.split(|&byte| byte == b'\n');
    let direct: Vec<&[u8]> = lines.filter_map(|line| line.strip_suffix(b"\0")).collect();
    Ok(parse(&direct.join(&b'\n')))
}

/// Whether a search for commits ends where the clone is shallow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    AsKnown,
    Complete,
}

/// Returns the commits of `commits` that no ref of `refs` reaches.
pub(super) async fn not_in<'a>(
    directory: &Path,
    commits: impl Iterator<Item = &'a String>,
    refs: &Refs,
    history: History,
) -> Result<BTreeSet<String>> {
    let commits: BTreeSet<&String> = commits.collect();
    if commits.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut input = String::new();
    for commit in &commits {
        input.extend([commit, "\n"]);
    }
    for id in refs.values().collect::<BTreeSet<_>>() {
        input.extend(["^", id, "\n"]);
    }
    let call = Call {
        input: input.as_bytes(),
        ignores_shallow: history == History::Complete,
        ..Call::new(directory, "rev-list", &["--stdin"])
    };
    let listed = call.output().await?;
    let listed = String::from_utf8_lossy(&listed);
    let missing = listed
        .lines()
        .filter(|line| commits.contains(&(*line).to_owned()));
    Ok(missing.map(str::to_owned).collect())
}

/// Returns whether a fetch, and no person, moves this ref.
fn is_followed(name: &[u8], is_bare: bool) -> bool {
    let place: &[u8] = if is_bare {
        b"refs/heads/"
    } else {
        b"refs/remotes/origin/"
    };
    name.starts_with(place)
}

impl RefStates<'_> {
    /// Returns the ids of the refs that were moved since the last restore, and that the snapshot
    /// has with yet another id. If the snapshot contains them, it is the newer state.
    pub(super) fn moved(&self, is_bare: bool) -> impl Iterator<Item = &String> {
        self.new.iter().filter_map(move |(name, new)| {
            let (old, local) = (self.old.get(name), self.local.get(name)?);
            let is_moved = old != Some(new) && old != Some(local) && local != new;
            (is_moved && is_followed(name, is_bare)).then_some(local)
        })
    }

    /// Returns the refs to change. `newer` are the ids of [`RefStates::moved`] that the snapshot
    /// doesn't contain. A ref that a person or a fetch moved stays, unless the snapshot contains
    /// its commit.
    pub(super) fn changes(&self, is_bare: bool, newer: &BTreeSet<String>) -> RefChanges {
        let mut changes = RefChanges::default();
        for (name, new) in self.new {
            let (old, local) = (self.old.get(name), self.local.get(name));
            if old == Some(new) || local == Some(new) {
                continue;
            }
            let is_contained =
                local.is_some_and(|id| is_followed(name, is_bare) && !newer.contains(id));
            if local == old || is_contained {
                let change = (local.cloned(), new.clone());
                changes.set.insert(name.clone(), change);
            }
        }
        for (name, old) in self.old {
            if !self.new.contains_key(name) && self.local.get(name) == Some(old) {
                changes.deleted.insert(name.clone(), old.clone());
            }
        }
        changes
    }
}

impl RefChanges {
    /// Sets another ref in the same transaction.
    pub(super) fn set(&mut self, name: Vec<u8>, (local, new): (Option<String>, String)) {
        self.set.insert(name, (local, new));
    }

    /// Leaves a ref as it is.
    pub(super) fn keep(&mut self, name: &[u8]) {
        self.set.remove(name);
        self.deleted.remove(name);
    }

    /// Changes the refs: first the deletions, because `a` may be in the way of `a/b`.
    pub(super) async fn write(&self, directory: &Path) -> Result<()> {
        let mut deletions = Vec::new();
        for (name, id) in &self.deleted {
            deletions.extend([b"delete ", &**name, b"\0", id.as_bytes(), b"\0"].concat());
        }
        let mut updates = Vec::new();
        for (name, (local, new)) in &self.set {
            let (verb, local): (&[u8], _) = match local {
                Some(local) => (b"update ", [local.as_bytes(), b"\0"].concat()),
                None => (b"create ", Vec::new()),
            };
            updates.extend([verb, name, b"\0", new.as_bytes(), b"\0", &local].concat());
        }
        for input in [&*deletions, &*updates] {
            if !input.is_empty() {
                let arguments = ["-m", "cachewfs restore", "--stdin", "-z"];
                let call = Call {
                    input,
                    ..Call::new(directory, "update-ref", &arguments)
                };
                call.output().await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_follow_the_snapshot_unless_a_person_changed_them() {
        let branch = |name: &str| format!("refs/remotes/origin/{name}");
        let refs = |list: &[(&str, &str)]| -> Refs {
            let list = list.iter();
            list.map(|&(name, id)| (branch(name).into_bytes(), id.to_owned()))
                .collect()
        };
        let old = refs(&[("same", "1"), ("moved", "1"), ("gone", "1"), ("taken", "1")]);
        let old_and = |more: &[(&str, &str)]| [old.clone(), refs(more)].into_iter().flatten();
        // `fetched` and `newer` were moved by git fetch, `taken` was deleted by a person.
        let old = old_and(&[("fetched", "1"), ("newer", "1"), ("kept", "1")]).collect();
        let local = refs(&[
            ("same", "1"),
            ("moved", "1"),
            ("gone", "1"),
            ("fetched", "2"),
            ("newer", "9"),
            ("kept", "7"),
        ]);
        let new = refs(&[
            ("same", "1"),
            ("moved", "3"),
            ("fetched", "3"),
            ("newer", "3"),
            ("taken", "1"),
            ("added", "3"),
        ]);
        let states = RefStates {
            old: &old,
            local: &local,
            new: &new,
        };
        let moved: Vec<_> = states.moved(false).collect();
        assert_eq!(moved, ["2", "9"]);

        let changes = states.changes(false, &BTreeSet::from(["9".to_owned()]));

        let names = |names: &[&str]| names.iter().map(|name| branch(name)).collect::<Vec<_>>();
        let text = |name: &Vec<u8>| String::from_utf8(name.clone()).unwrap();
        let set: Vec<_> = changes.set.keys().map(text).collect();
        assert_eq!(set, names(&["added", "fetched", "moved"]));
        let deleted: Vec<_> = changes.deleted.keys().map(text).collect();
        assert_eq!(deleted, names(&["gone"]));
    }
}
