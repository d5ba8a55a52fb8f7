//! The files whose last read failed, for `cachewfs status`.
//!
//! A program that reads a mount sees `EIO`, or gets SIGBUS. It can't see the reason, and often it
//! doesn't name the file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use cachewfs_format::RepoName;
use parking_lot::Mutex;

use crate::control::protocol::FailedReadReport;
use crate::lasting_failure::LastingFailure;

/// At most this many files of each repository. Beyond that, the oldest failure is forgotten.
const MAX_OF_ONE: usize = 16;

/// The files whose last read failed, by repository.
#[derive(Debug, Default)]
pub(crate) struct FailedReads {
    /// Whether there are any. A read that succeeds looks only at this.
    has_any: AtomicBool,
    /// The paths and failures of each repository, the latest first.
    repos: Mutex<HashMap<RepoName, Vec<(String, LastingFailure)>>>,
}

impl FailedReads {
    /// Returns whether no read has failed.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_any.load(Ordering::Acquire)
    }

    /// Notes that a read of `path` failed. Returns whether this is news: the last read of it
    /// succeeded, or failed for another reason.
    pub(crate) fn note(&self, repo: &RepoName, path: &str, reason: String) -> bool {
        let mut repos = self.repos.lock();
        let reads = repos.entry(repo.clone()).or_default();
        let known = reads.iter().position(|(known, _)| known == path);
        let known = known.map(|at| reads.remove(at).1);
        let is_news = known.as_ref().is_none_or(|known| known.reason != reason);
        let failure = LastingFailure::after(known.as_ref(), reason);
        reads.insert(0, (path.to_owned(), failure));
        reads.truncate(MAX_OF_ONE);
        self.has_any.store(true, Ordering::Release);
        is_news
    }

    /// Notes that a read of `path` succeeded.
    pub(crate) fn clear(&self, repo: &RepoName, path: &str) {
        let mut repos = self.repos.lock();
        if let Some(reads) = repos.get_mut(repo) {
            reads.retain(|(failed, _)| failed != path);
        }
        repos.retain(|_, reads| !reads.is_empty());
        self.has_any.store(!repos.is_empty(), Ordering::Release);
    }

    /// Takes over the files of `repo` that another process couldn't read.
    pub(crate) fn restore(&self, repo: &RepoName, reads: Vec<FailedReadReport>) {
        let mut repos = self.repos.lock();
        if reads.is_empty() {
            repos.remove(repo);
        } else {
            let reads = reads
                .into_iter()
                .map(|read| (read.path, read.failure.into()));
            repos.insert(repo.clone(), reads.collect());
        }
        self.has_any.store(!repos.is_empty(), Ordering::Release);
    }

    /// Returns the files of `repo` whose last read failed, the latest first.
    pub(crate) fn of(&self, repo: &RepoName) -> Vec<FailedReadReport> {
        let repos = self.repos.lock();
        let reads = repos.get(repo).into_iter().flatten();
        reads
            .map(|(path, failure)| FailedReadReport {
                path: path.clone(),
                failure: failure.report(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_until_its_file_can_be_read_and_the_latest_are_kept() {
        let reads = FailedReads::default();
        let repo = RepoName::parse("host/repo").unwrap();
        assert!(reads.note(&repo, "a", "cut".to_owned()));
        assert!(!reads.note(&repo, "a", "cut".to_owned()));
        assert!(reads.note(&repo, "a", "timed out".to_owned()));
        assert_eq!(reads.of(&repo).len(), 1);
        assert_eq!(reads.of(&repo)[0].failure.reason, "timed out");

        reads.clear(&repo, "a");

        assert!(reads.is_empty() && reads.of(&repo).is_empty());
        for number in 0..100 {
            reads.note(&repo, &number.to_string(), "cut".to_owned());
        }
        assert_eq!(reads.of(&repo).len(), MAX_OF_ONE);
        assert_eq!(reads.of(&repo)[0].path, "99");
    }
}
