//! Whether upstream has moved: the cheap question before an update.

use std::collections::BTreeSet;
use std::path::Path;

use super::update::{Head, mirrored_namespaces};
use super::{Git, MirrorError, RefName, Upstream};
use crate::config::GitConfig;

/// Lists the refs of `upstream` that `mirror` has, and HEAD.
pub(crate) fn list_upstream(
    git: &Git,
    upstream: &Upstream,
    (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<String, MirrorError> {
    let patterns = mirrored_namespaces(namespaces).map(|namespace| format!("{namespace}*"));
    let failed = |source| MirrorError::of_upstream(git, upstream, source);
    let answer = git
        .in_repository(mirror, "ls-remote")
        .secrets(&upstream.git_secrets(git).map_err(failed)?)
        .args(["--symref", "--", upstream.url(), "HEAD"])
        .args(patterns)
        .time_limit(config.ls_remote_timeout)
        .output()
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether heads, tags, `namespaces` and HEAD of `mirror` are what `listing` says they are upstream.
/// Changes nothing, so it may run beside anything.
pub(crate) fn is_current(
    git: &Git,
    (mirror, namespaces): (&Path, &[String]),
    listing: &str,
) -> Result<bool, MirrorError> {
    let present = git
        .in_repository(mirror, "for-each-ref")
        .args(["--format=%(objectname)%09%(refname)"])
        .args(mirrored_namespaces(namespaces))
        .output()?;
    let present = String::from_utf8_lossy(&present);
    Ok(
        refs(listing, namespaces) == refs(&present, namespaces)
            && is_head_of(git, mirror, listing)?,
    )
}

/// The lines of `listing` that name refs which are mirrored.
fn refs<'a>(listing: &'a str, namespaces: &[String]) -> BTreeSet<&'a str> {
    let is_mirrored = |line: &&str| {
        line.split_once('\t').is_some_and(|(_, name)| {
            !name.ends_with("^{}")
                // Git fetches no others.
                && RefName::parse(name).is_some()
                && mirrored_namespaces(namespaces).any(|namespace| name.starts_with(namespace))
        })
    };
    listing.lines().filter(is_mirrored).collect()
}

fn is_head_of(git: &Git, mirror: &Path, answer: &str) -> Result<bool, MirrorError> {
    let path = mirror.join("HEAD");
    let head = std::fs::read_to_string(&path).map_err(|source| MirrorError::Io { path, source })?;
    let branch = head.trim().strip_prefix("ref: ");
    Ok(match (Head::parse(answer), branch) {
        (Head::Branch(upstream), Some(branch)) => upstream == branch,
        (Head::Detached { commit }, None) => {
            let present = git
                .in_repository(mirror, "rev-parse")
                .args(["--verify", "HEAD"]);
            present.text()? == commit
        }
        (Head::Unborn, _) => true,
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
        let upstream = "ref: refs/heads/main\tHEAD\n1\tHEAD\n1\trefs/heads/main\n2\trefs/tags/v1\n\
                        1\trefs/tags/v1^{}\n5\trefs/heads/../x\n3\trefs/pull/1/head\n4\trefs/notes/x\n";
        let mirror = "1\trefs/heads/main\n2\trefs/tags/v1\n";

        assert_eq!(refs(upstream, &[]), refs(mirror, &[]));
        assert_ne!(
            refs(upstream, &["refs/notes/".to_owned()]),
            refs(mirror, &["refs/notes/".to_owned()])
        );
    }
}
