//! Updates: `git fetch` into a mirror, with HEAD following upstream's.

use std::path::Path;

use super::{Git, MirrorError, RefName, Upstream};
use crate::config::GitConfig;

/// Keeps what a detached HEAD upstream names reachable.
const DETACHED_HEAD: &str = "refs/cachewfs/head";

/// So much of a name that can't be one is shown, in characters.
const MAX_SHOWN: usize = 100;

/// Makes heads, tags, `namespaces` and HEAD of `mirror` what they are upstream. Refs of our own
/// (`refs/cachewfs/`) are never pruned: no refspec covers them.
pub(crate) fn update(
    git: &Git,
    upstream: &Upstream,
    (mirror, namespaces): (&Path, &[String]),
    config: &GitConfig,
) -> Result<(), MirrorError> {
    let failed = |source| MirrorError::of_upstream(git, upstream, source);
    let head = head_of_upstream(git, upstream, mirror, config)?;
    let mut refspecs: Vec<String> = mirrored_namespaces(namespaces)
        .map(|namespace| format!("+{namespace}*:{namespace}*"))
        .collect();
    if matches!(head, Head::Detached { .. }) {
        refspecs.push(format!("+HEAD:{DETACHED_HEAD}"));
    }
    git.in_repository(mirror, "fetch")
        // Fetched for each command: what an earlier one was given may have expired.
        .secrets(&upstream.git_secrets(git).map_err(failed)?)
        .args([
            "--prune",
            "--no-tags",
            "--quiet",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ])
        .args(["--", upstream.url()])
        .args(refspecs)
        .time_limit(config.fetch_timeout)
        .effect()
        .map_err(failed)?;
    follow_head(git, mirror, &head)
}

/// Asks upstream what its HEAD is.
pub(crate) fn head_of_upstream(
    git: &Git,
    upstream: &Upstream,
    mirror: &Path,
    config: &GitConfig,
) -> Result<Head, MirrorError> {
    let failed = |source| MirrorError::of_upstream(git, upstream, source);
    let answer = git
        .in_repository(mirror, "ls-remote")
        .secrets(&upstream.git_secrets(git).map_err(failed)?)
        .args(["--symref", "--", upstream.url(), "HEAD"])
        .time_limit(config.ls_remote_timeout)
        .output()
        .map_err(failed)?;
    match Head::parse(&String::from_utf8_lossy(&answer)) {
        Head::Impossible { name } => {
            let url = upstream.url().to_owned();
            Err(MirrorError::BadHead { url, name })
        }
        head => Ok(head),
    }
}

/// The namespaces of refs that a mirror has of upstream's: heads, tags, and the configured ones.
pub(crate) fn mirrored_namespaces(configured: &[String]) -> impl Iterator<Item = &str> {
    ["refs/heads/", "refs/tags/"]
        .into_iter()
        .chain(configured.iter().map(String::as_str))
}

/// What upstream's HEAD is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// It names a branch.
    Branch(String),
    /// It names a commit.
    Detached { commit: String },
    /// It names nothing that there is: upstream doesn't tell.
    Unborn,
    /// It names what no ref can be called: an option, or a way out of the mirror.
    Impossible { name: String },
}

impl Head {
    /// Parses what `git ls-remote --symref <url> HEAD` prints.
    pub(super) fn parse(answer: &str) -> Self {
        let names_head = |line: &&str| {
            line.split_once('\t')
                .is_some_and(|(_, name)| name == "HEAD")
        };
        let mut lines = answer.lines().filter(names_head);
        let branch = |line: &str| {
            Some(
                line.strip_prefix("ref: ")?
                    .strip_suffix("\tHEAD")?
                    .to_owned(),
            )
        };
        match lines.clone().find_map(branch) {
            Some(branch) if RefName::parse(&branch).is_some() => Self::Branch(branch),
            Some(branch) => Self::Impossible {
                name: branch.chars().take(MAX_SHOWN).collect(),
            },
            None => match lines.find_map(|line| line.strip_suffix("\tHEAD")) {
                Some(commit) => Self::Detached {
                    commit: commit.to_owned(),
                },
                None => Self::Unborn,
            },
        }
    }
}

fn follow_head(git: &Git, mirror: &Path, head: &Head) -> Result<(), MirrorError> {
    match head {
        Head::Branch(branch) => {
            let present = git
                .in_repository(mirror, "symbolic-ref")
                .args(["-q", "HEAD"])
                .text();
            if present.ok().as_deref() != Some(branch) {
                git.in_repository(mirror, "symbolic-ref")
                    .args(["HEAD", branch])
                    .effect()?;
            }
            if mirror.join(DETACHED_HEAD).exists() {
                git.in_repository(mirror, "update-ref")
                    .args(["-d", DETACHED_HEAD])
                    .effect()?;
            }
        }
        Head::Detached { .. } => {
            // What was fetched, not what was listed before: the two may differ.
            let commit = git
                .in_repository(mirror, "rev-parse")
                .args(["--verify", DETACHED_HEAD])
                .text()?;
            git.in_repository(mirror, "update-ref")
                .args(["--no-deref", "HEAD", &commit])
                .effect()?;
        }
        // The latter is an error by now.
        Head::Unborn | Head::Impossible { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_kind_of_head() {
        let oid = "1a".repeat(20);
        let branch =
            format!("ref: refs/heads/main\tHEAD\n{oid}\tHEAD\n{oid}\trefs/remotes/x/HEAD\n");

        assert_eq!(
            Head::parse(&branch),
            Head::Branch("refs/heads/main".to_owned())
        );
        assert_eq!(
            Head::parse(&format!("{oid}\tHEAD\n")),
            Head::Detached {
                commit: oid.clone()
            }
        );
        assert_eq!(Head::parse(""), Head::Unborn);
        for bad in [
            "--delete",
            "HEAD",
            "refs/heads/../x",
            "refs/heads/a b",
            "/x",
        ] {
            let name = bad.to_owned();
            let answer = format!("ref: {bad}\tHEAD\n");
            assert_eq!(Head::parse(&answer), Head::Impossible { name });
        }
    }
}
