//! Waits until a daemon has the refs and commits that a restore or a clone needs.

use std::time::Duration;

use cachewfs_format::RepoName;
use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest};
use tokio::time::{Instant, sleep};

use super::RestoreError;
use crate::fetch::{ArchiveSource, FetchError};

/// How often the daemon is asked. It asks upstream each time.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the caller waits. A server of git may show a push minutes late, but not later.
const LIMIT: Duration = Duration::from_mins(10);

/// Waits until the daemon has everything that is `wanted`, and has published it.
pub(crate) async fn wait_for(
    repo: &RepoName,
    wanted: &EnsureRefsRequest,
    (source, on_wait): (&dyn ArchiveSource, &impl Fn(&str)),
) -> Result<(), RestoreError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let missing = match source.ensure_refs(repo, wanted).await {
            Ok(answer) => missing(wanted, &answer),
            // The daemon is busy, or clones the repository.
            Err(error @ FetchError::NotYet { .. }) => Some(error.to_string()),
            Err(error) => return Err(RestoreError::of_load(repo.as_str(), error.into())),
        };
        let Some(missing) = missing else { break };
        if Instant::now() + PAUSE > deadline {
            let minutes = LIMIT.as_secs() / 60;
            return Err(RestoreError::NotThere { missing, minutes });
        }
        on_wait(&missing);
        sleep(PAUSE).await;
    }
    // The mirror has it. This publishes a snapshot of the mirror, unless there is one already.
    let refreshed = source.refresh(repo).await;
    refreshed
        .map(drop)
        .map_err(|error| RestoreError::of_load(repo.as_str(), error.into()))
}

/// Returns a sentence about the first ref or commit that the daemon lacks.
fn missing(wanted: &EnsureRefsRequest, answer: &EnsureRefsAnswer) -> Option<String> {
    if let Some(commit) = answer.missing_commits.first() {
        return Some(format!("commit {commit} is not there yet"));
    }
    wanted.refs.iter().find_map(|(name, id)| {
        let found = answer.refs.get(name).map_or("", String::as_str);
        match (found, id.as_str()) {
            ("", _) => Some(format!("{name} is not there yet")),
            (_, "") => None,
            (found, id) if found == id => None,
            (found, id) => Some(format!("{name} is at {found}, and not yet at {id}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn refs_and_commits_are_waited_for() {
        let refs = |id: &str| BTreeMap::from([("refs/heads/a".to_owned(), id.to_owned())]);
        let wanted = |id| EnsureRefsRequest {
            refs: refs(id),
            commits: vec!["c".to_owned()],
        };
        let answer = |id, missing: &[&str]| EnsureRefsAnswer {
            refs: refs(id),
            missing_commits: missing.iter().map(|&id| id.to_owned()).collect(),
            fetched: true,
        };

        assert_eq!(missing(&wanted("1"), &answer("1", &[])), None);
        assert_eq!(missing(&wanted(""), &answer("1", &[])), None);
        for (wanted, answer) in [
            (wanted("1"), answer("1", &["c"])),
            (wanted("1"), answer("2", &[])),
            (wanted("1"), answer("", &[])),
            (wanted(""), answer("", &[])),
        ] {
            assert!(missing(&wanted, &answer).is_some(), "{answer:?}");
        }
    }
}
