//! Bundles: the objects that a clone with one commit still needs to have the refs of the mirror.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use cachewfs_format::ObjectId;

use super::query::QUERY_LIMIT;
use super::{Git, GitError};

/// A ref that goes into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BundleRef {
    /// `HEAD` or a full name.
    name: Vec<u8>,
    target: ObjectId,
}

impl BundleRef {
    /// Returns a line that identifies the ref and its target. It changes when the ref moves.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        [self.target.to_string().as_bytes(), b" ", &self.name, b"\n"].concat()
    }
}

/// Returns the branches and tags of `mirror` with commits that `base` doesn't reach. `base` is a
/// commit of the mirror.
///
/// Leaves out refs whose targets are in `known`, except the branch of HEAD, which a clone pulls.
/// The branch of HEAD may have moved to a known commit, so it is left out only if `base` reaches
/// it.
pub(crate) fn refs_beyond(
    git: &Git,
    mirror: &Path,
    base: ObjectId,
    known: &HashSet<ObjectId>,
) -> Result<Vec<BundleRef>, GitError> {
    let head = match git
        .in_repository(mirror, "symbolic-ref")
        .args(["--quiet", "HEAD"])
        .text()
    {
        // HEAD is detached.
        Err(error) if error.exit_code() == Some(1) => String::new(),
        head => head?,
    };
    let output = git
        .in_repository(mirror, "for-each-ref")
        .args([format!("--no-merged={base}")])
        .args(["--format=%(objectname) %(refname)"])
        .args(["refs/heads/", "refs/tags/"])
        .time_limit(QUERY_LIMIT)
        .output()?;
    let mut refs = Vec::new();
    for line in output.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(2, |&byte| byte == b' ');
        let oid = fields.next().and_then(|oid| std::str::from_utf8(oid).ok());
        let (Some(oid), Some(name)) = (oid, fields.next()) else {
            continue;
        };
        let Ok(target) = ObjectId::parse(oid) else {
            continue;
        };
        let name = name.to_owned();
        if name == head.as_bytes() {
            // A bundle needs a HEAD of its own, or git wouldn't know which branch to check out.
            let name = b"HEAD".to_vec();
            refs.push(BundleRef { name, target });
        } else if known.contains(&target) {
            continue;
        }
        refs.push(BundleRef { name, target });
    }
    Ok(refs)
}

/// Writes a bundle of `refs` to `file`, for a clone that already has `base`.
pub(crate) fn write_bundle(
    git: &Git,
    mirror: &Path,
    (base, refs): (ObjectId, &[BundleRef]),
    file: File,
    time_limit: Duration,
) -> Result<(), GitError> {
    let mut input = format!("^{base}\n").into_bytes();
    for each in refs {
        input.extend_from_slice(&each.name);
        input.push(b'\n');
    }
    git.in_repository(mirror, "bundle")
        .args(["create", "--quiet", "-", "--stdin"])
        .input(input)
        .time_limit(time_limit)
        .output_to(file)
}
