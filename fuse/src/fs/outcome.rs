//! Notes how calls ended: in the log, and for `cachewfs status`.

use cachewfs_base::chain;
use tracing::warn;

use super::{Fs, Ino};
use crate::error::FsError;

impl Fs {
    /// Notes that a call which reads the file or directory `ino` failed with `error`, or that it
    /// succeeded.
    pub(crate) fn note_outcome(&self, ino: Ino, error: Option<&FsError>) {
        let failed_reads = &self.repositories.segments.backend().failed_reads;
        let error = error.filter(|error| !error.is_expected());
        if error.is_none() && failed_reads.is_empty() {
            return;
        }
        let Ok(node) = self.inodes.get(ino) else {
            // The kernel has forgotten the inode meanwhile, so no program waits for the answer.
            return;
        };
        let path = node.path_in_mount();
        let repo = node.repository().map(|repository| &repository.name);
        let Some(error) = error else {
            if let Some(repo) = repo {
                failed_reads.clear(repo, &path);
            }
            return;
        };
        let errno = error.errno();
        let Some(repo) = repo else {
            warn!(
                path,
                ?errno,
                error = error as &dyn std::error::Error,
                "Can't find out which names are in /{path}"
            );
            return;
        };
        // The kernel asks several times for a page that it doesn't get, and so do programs.
        if failed_reads.note(repo, &path, chain(error)) {
            warn!(
                path,
                ?errno,
                error = error as &dyn std::error::Error,
                "Can't read {path}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::error::FsError;
    use crate::fetch::FetchError;
    use crate::testing::{REPO, archive, bench};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_failed_is_reported_with_its_file_until_a_read_succeeds() {
        let bench = bench(archive("main", b"PACK", &[("a", 0o100_644, b"content")]));
        let mut ino = crate::fs::inode::ROOT_INO;
        for name in ["host", "org", "repo", "a"] {
            let found = bench.fs.lookup(ino, name.as_bytes()).await;
            ino = found.unwrap().ino;
        }
        let failed = || {
            let reports = bench.repositories.report();
            reports.into_iter().flat_map(|repo| repo.failed_reads)
        };
        let error = FsError::Fetch(FetchError::TimedOut { seconds: 7 });

        bench.fs.note_outcome(ino, Some(&FsError::NoEntry));
        assert_eq!(failed().count(), 0);
        bench.fs.note_outcome(ino, Some(&error));
        let reported: Vec<_> = failed().collect();
        bench.fs.note_outcome(ino, None);

        assert_eq!(reported.len(), 1);
        assert_eq!(reported[0].path, format!("{REPO}/a"));
        assert!(reported[0].failure.reason.contains("within 7 s"));
        assert!(reported[0].failure.since > 0);
        assert_eq!(failed().count(), 0);
    }
}
