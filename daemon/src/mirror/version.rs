//! The versions of git that the daemon works with.

use super::{Git, GitError};

/// The oldest version that the daemon is tested with: Debian 12's.
const OLDEST: (u32, u32) = (2, 39);

/// Why the installed git can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GitVersionError {
    /// git isn't installed, or doesn't run.
    #[error("git can't be run: install git 2.39 or later")]
    NoGit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// git is older than the oldest supported version.
    #[error("{version} is too old: install git 2.39 or later")]
    TooOld {
        /// The version, as git prints it.
        version: String,
    },
}

/// Fails if git isn't installed or is too old. Blocks the thread.
pub(crate) fn check_version(git: &Git) -> Result<(), GitVersionError> {
    let no_git = |error: GitError| GitVersionError::NoGit(error.into());
    let version = git.command("version").text().map_err(no_git)?;
    match parse(&version) {
        // A version that can't be parsed is accepted: it may be the operator's own build.
        Some(found) if found < OLDEST => Err(GitVersionError::TooOld { version }),
        _ => Ok(()),
    }
}

/// Parses the major and minor version from the output of `git version`.
fn parse(line: &str) -> Option<(u32, u32)> {
    let number = line.split(' ').nth(2)?;
    let mut parts = number.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("git version 2.39.5"), Some((2, 39)));
        assert_eq!(parse("git version 2.55.GIT"), Some((2, 55)));
        assert_eq!(parse("git version 3.0.0 (Apple Git-1)"), Some((3, 0)));
        assert_eq!(parse("git version unknown"), None);
        assert!((2, 9) < OLDEST && OLDEST < (2, 100) && OLDEST < (3, 0));
    }
}
