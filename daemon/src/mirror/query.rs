//! What a mirror has: refs by name, objects by id. Reads only, so it may run beside anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use cachewfs_format::{ObjectId, is_ref_name};

use super::{Git, GitError};

/// Where refs of our own are, which nobody else is shown.
pub(super) const HIDDEN: &str = "refs/cachewfs/";

/// A look into a mirror that takes longer than this has gone wrong.
pub(super) const QUERY_LIMIT: Duration = Duration::from_mins(1);

/// The full name of a ref (`git-check-ref-format(1)`), which has nothing that git takes for a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RefName(String);

impl RefName {
    /// Parses `refs/<namespace>/<name>`; `None` for what no ref that is shown can be called.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("refs/")?;
        let is_good =
            is_ref_name(name.as_bytes()) && rest.contains('/') && !name.starts_with(HIDDEN);
        is_good.then(|| Self(name.to_owned()))
    }
}

/// The objects that refs name; a ref that isn't there has none.
pub(crate) fn resolve_refs(
    git: &Git,
    mirror: &Path,
    names: &[RefName],
) -> Result<HashMap<RefName, ObjectId>, GitError> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let output = git
        .in_repository(mirror, "for-each-ref")
        .args(["--format=%(objectname) %(refname)", "--"])
        .args(names.iter().map(|name| &name.0))
        .time_limit(QUERY_LIMIT)
        .output()?;
    // A pattern finds what lies below it, too.
    let wanted: HashSet<&RefName> = names.iter().collect();
    // A name that is not UTF-8 is none of those that were asked for.
    let resolve = |line: &[u8]| {
        let (oid, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some((RefName(name.to_owned()), ObjectId::parse(oid).ok()?))
    };
    Ok(output
        .split(|&byte| byte == b'\n')
        .filter_map(resolve)
        .filter(|(name, _)| wanted.contains(name))
        .collect())
}

/// Returns the first `max` refs of `namespaces` in order of their names, and whether there are more.
pub(crate) fn first_refs<'a>(
    git: &Git,
    mirror: &Path,
    namespaces: impl Iterator<Item = &'a str>,
    max: usize,
) -> Result<(BTreeMap<String, ObjectId>, bool), GitError> {
    let output = git
        .in_repository(mirror, "for-each-ref")
        .args([format!("--count={}", max.saturating_add(1))])
        .args(["--format=%(objectname) %(refname)", "--"])
        .args(namespaces)
        .time_limit(QUERY_LIMIT)
        .output()?;
    let parse = |line: &[u8]| {
        let space = line.iter().position(|&byte| byte == b' ')?;
        let (oid, name) = (line.get(..space)?, line.get(space + 1..)?);
        let name = shown_name(name.to_owned());
        let oid = ObjectId::parse(std::str::from_utf8(oid).ok()?).ok()?;
        Some((name, oid))
    };
    let lines = || {
        let lines = output.split(|&byte| byte == b'\n');
        lines.filter(|line| !line.is_empty())
    };
    let refs = lines().take(max).filter_map(parse).collect();
    Ok((refs, lines().count() > max))
}

/// Returns the name of a ref as people are shown it. A name that is not UTF-8 is escaped: `gr\xfcn`.
pub(super) fn shown_name(name: Vec<u8>) -> String {
    let name = String::from_utf8(name);
    name.unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string())
}

/// Those of `oids` that the mirror has no object of.
pub(crate) fn missing_objects(
    git: &Git,
    mirror: &Path,
    oids: &[ObjectId],
) -> Result<HashSet<ObjectId>, GitError> {
    let kinds = kinds(git, mirror, oids)?;
    let is_missing = |oid: &ObjectId| !kinds.contains_key(oid);
    Ok(oids.iter().copied().filter(is_missing).collect())
}

/// Whether the mirror has this commit.
pub(crate) fn has_commit(git: &Git, mirror: &Path, oid: ObjectId) -> Result<bool, GitError> {
    let kinds = kinds(git, mirror, &[oid])?;
    Ok(kinds.get(&oid).is_some_and(|kind| kind == "commit"))
}

/// Returns the commit of HEAD; `None` if HEAD names a branch that isn't there, or can't be read.
pub(crate) fn head_commit(git: &Git, mirror: &Path) -> Result<Option<ObjectId>, GitError> {
    let commit = git
        .in_repository(mirror, "rev-parse")
        .args(["--verify", "--quiet", "HEAD^{commit}"])
        .text();
    match commit {
        Err(error) if error.exit_code() == Some(1) => Ok(None),
        commit => Ok(ObjectId::parse(&commit?).ok()),
    }
}

/// The types of those of `oids` that the mirror has.
fn kinds(
    git: &Git,
    mirror: &Path,
    oids: &[ObjectId],
) -> Result<HashMap<ObjectId, String>, GitError> {
    let mut kinds = HashMap::new();
    if oids.is_empty() {
        return Ok(kinds);
    }
    let lines: Vec<_> = oids.iter().map(|oid| format!("{oid}\n")).collect();
    let output = git
        .in_repository(mirror, "cat-file")
        .args(["--batch-check=%(objectname) %(objecttype)"])
        .input(lines.concat())
        .time_limit(QUERY_LIMIT)
        .text()?;
    for line in output.lines() {
        if let Some((oid, kind)) = line.split_once(' ')
            && kind != "missing"
            && let Ok(oid) = ObjectId::parse(oid)
        {
            kinds.insert(oid, kind.to_owned());
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_names_of_refs_that_are_shown_are_taken() {
        for good in [
            "refs/heads/main",
            "refs/tags/v1.0",
            "refs/heads/a/b@c",
            "refs/heads/ä",
        ] {
            assert!(RefName::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "main",
            "--all",
            "refs/heads",
            "refs/heads/",
            "refs//x",
            "refs/heads/*",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a b",
            "refs/heads/a\n",
            "refs/heads/a@{1}",
            "refs/heads/a~1",
            "refs/heads/a.",
            "refs/cachewfs/retained/x",
        ] {
            assert!(RefName::parse(bad).is_none(), "{bad:?}");
        }
    }
}
