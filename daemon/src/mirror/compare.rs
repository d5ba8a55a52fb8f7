//! Whether upstream has moved: the cheap question before an update.

use std::collections::BTreeSet;
use std::path::Path;

use cachewfs_format::is_ref_name;

use super::ask::ls_remote;
use super::query::head_commit;
use super::update::{DETACHED_HEAD, Head, mirrored_namespaces};
use super::{Git, MirrorError, Upstream};
use crate::config::GitConfig;

/// Lists the refs of `upstream` that `mirror` has, and HEAD.
pub(crate) fn list_upstream(
    git: &Git,
    upstream: &Upstream,
    (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<Vec<u8>, MirrorError> {
    let patterns = mirrored_namespaces(namespaces).map(|namespace| format!("{namespace}*"));
    let patterns: Vec<_> = patterns.collect();
    ls_remote(git, upstream, (mirror, &patterns), config)
}

/// Whether heads, tags, `namespaces` and HEAD of `mirror` are what `listing` says they are upstream.
/// Changes nothing, so it may run beside anything.
pub(crate) fn is_current(
    git: &Git,
    (mirror, namespaces): (&Path, &[String]),
    listing: &[u8],
) -> Result<bool, MirrorError> {
    let present = git
        .in_repository(mirror, "for-each-ref")
        .args(["--format=%(objectname)%09%(refname)"])
        .args(mirrored_namespaces(namespaces))
        .output()?;
    Ok(
        refs(listing, namespaces) == refs(&present, namespaces)
            && is_head_of(git, mirror, listing)?,
    )
}

/// Returns the lines of `listing` that name refs which are mirrored.
fn refs<'a>(listing: &'a [u8], namespaces: &[String]) -> BTreeSet<&'a [u8]> {
    let is_mirrored = |line: &&[u8]| {
        let tab = line.iter().position(|&byte| byte == b'\t');
        let name = tab.and_then(|tab| line.get(tab + 1..)).unwrap_or_default();
        let mut namespaces = mirrored_namespaces(namespaces);
        // A line that ends with ^{} says what a tag is of. git fetches only refs that it can name.
        is_ref_name(name) && namespaces.any(|namespace| name.starts_with(namespace.as_bytes()))
    };
    let lines = listing.split(|&byte| byte == b'\n');
    lines.filter(is_mirrored).collect()
}

fn is_head_of(git: &Git, mirror: &Path, answer: &[u8]) -> Result<bool, MirrorError> {
    let path = mirror.join("HEAD");
    let head = std::fs::read(&path).map_err(|source| MirrorError::Io { path, source })?;
    let branch = head.trim_ascii().strip_prefix(b"ref: ");
    Ok(match (Head::parse(answer), branch) {
        (Head::Branch(upstream), Some(branch)) => upstream == branch,
        (Head::Detached { target }, None) => {
            let present = git
                .in_repository(mirror, "rev-parse")
                .args(["--verify", DETACHED_HEAD]);
            present.text()?.as_bytes() == target
        }
        (Head::Unborn, _) => head_commit(git, mirror)?.is_none(),
        (Head::Branch(_), None)
        | (Head::Detached { .. }, Some(_))
        | (Head::Impossible { .. }, _) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mirrored_refs_are_compared() {
        let upstream = b"ref: refs/heads/main\tHEAD\n1\tHEAD\n1\trefs/heads/main\n2\trefs/tags/v1\n\
                        1\trefs/tags/v1^{}\n5\trefs/heads/../x\n3\trefs/pull/1/head\n4\trefs/notes/x\n";
        let mirror = b"1\trefs/heads/main\n2\trefs/tags/v1\n";

        assert_eq!(refs(upstream, &[]), refs(mirror, &[]));
        assert_ne!(
            refs(upstream, &["refs/notes/".to_owned()]),
            refs(mirror, &["refs/notes/".to_owned()])
        );
    }
}
