//! Gets the TOC of a snapshot: from the end of its archive, which one request fetches, or few.

use std::ops::Range;

use cachewfs_format::{ArchiveKind, Error as FormatError, RepoName, Toc, TocLocation};
use futures_util::future::BoxFuture;

use crate::fetch::{FetchError, Tail, TailAnswer};
use crate::view::LoadError;

/// The length of the first request for the end of an archive, in bytes. It covers the seek table
/// and the TOC of most repositories.
pub(crate) const TAIL_LEN: u64 = 64 << 10;
/// At most this many requests are made for the end of an archive. The first answer gives the length
/// of the seek table, the second gives that of the TOC, and the third has the TOC.
const MAX_TAIL_REQUESTS: usize = 3;

/// Finds the TOC in `tail` and verifies it. Calls `ask` for a tail of another length if `tail` has
/// only a part of the TOC. Returns the tail from the TOC on: [`kept_toc`] finds it there again.
pub(crate) async fn load_toc<'a>(
    repo: &RepoName,
    mut tail: Tail,
    ask: impl Fn(u64) -> BoxFuture<'a, Result<TailAnswer, FetchError>>,
) -> Result<(Tail, Toc), LoadError> {
    let broken = |tail: &Tail, source| FetchError::Broken {
        url: tail.path.to_string(),
        source,
    };
    let mut requests = 1;
    let place = loop {
        match Toc::locate(&tail.bytes, tail.archive_len).map_err(|error| broken(&tail, error))? {
            TocLocation::Found(place) => break place,
            TocLocation::NeedsTail(len)
                if len <= tail.bytes.len() as u64 || requests == MAX_TAIL_REQUESTS =>
            {
                // A daemon that sends less than it is asked for must not keep the mount asking.
                return Err(FormatError::Truncated { section: "TOC" }.into());
            }
            TocLocation::NeedsTail(len) => {
                // The answer may be of a newer snapshot than `tail`. It replaces `tail` as a whole,
                // so the two never mix.
                let answer = ask(len).await?;
                let TailAnswer::Tail(longer) = answer else {
                    return Err(FormatError::Truncated { section: "TOC" }.into());
                };
                tail = longer;
                requests += 1;
            }
        }
    };
    let start = place.start;
    let toc = verified_toc(&tail, place).map_err(|error| broken(&tail, error))?;
    // If upstream ignores case, the daemon publishes one spelling and serves it under all.
    if !toc.repo.eq_ignore_case(repo) {
        return Err(LoadError::WrongRepo { found: toc.repo });
    }
    tail.bytes = tail.bytes.slice(start..);
    Ok((tail, toc))
}

/// Finds the TOC in a tail that an earlier mount kept. Returns `None` if the tail is incomplete or
/// damaged.
pub(super) fn kept_toc(repo: &RepoName, tail: &Tail) -> Option<Toc> {
    let Ok(TocLocation::Found(place)) = Toc::locate(&tail.bytes, tail.archive_len) else {
        return None;
    };
    let toc = verified_toc(tail, place).ok()?;
    toc.repo.eq_ignore_case(repo).then_some(toc)
}

/// Decodes the TOC at `place` in `tail`. Fails unless the `ETag` is its digest, and it fits to the
/// archive and to the snapshot that the daemon names.
fn verified_toc(tail: &Tail, place: Range<usize>) -> Result<Toc, FormatError> {
    let from_end = tail.bytes.len().saturating_sub(place.start) as u64;
    let (digest, toc) = Toc::decode(tail.bytes.get(place).unwrap_or_default())?;
    let expected = tail.etag.trim_matches('"').parse()?;
    if digest != expected {
        return Err(FormatError::WrongDigest {
            section: "TOC",
            expected,
        });
    }
    toc.check_offset(tail.archive_len.saturating_sub(from_end))?;
    if toc.kind == ArchiveKind::Lfs {
        return Err(FormatError::Malformed {
            section: "TOC",
            reason: "it is that of an LFS archive",
        });
    }
    if tail.snapshot.commit() != toc.commit {
        return Err(FormatError::Malformed {
            section: "TOC",
            reason: "its commit is not that of the snapshot that the daemon names",
        });
    }
    Ok(toc)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cachewfs_format::api::{EnsureRefsAnswer, EnsureRefsRequest, RefreshAnswer};
    use cachewfs_format::{Digest, SnapshotId};
    use futures_util::FutureExt as _;

    use super::*;
    use crate::fetch::{ArchiveSource, BodyStream, RangeRequest, current_tail};
    use crate::testing::{self, Archive};
    use crate::traffic::Purpose;

    /// Returns a tail that has the whole archive, and the position of the TOC in it.
    fn tail_of(archive: Archive) -> (Tail, Range<usize>) {
        let archive_len = archive.bytes.len() as u64;
        let TocLocation::Found(place) = Toc::locate(&archive.bytes, archive_len).unwrap() else {
            panic!("the whole archive was given");
        };
        let tail = Tail {
            path: "/a".into(),
            bytes: archive.bytes.into(),
            archive_len,
            etag: archive.etag,
            snapshot: archive.snapshot,
            notice: None,
        };
        (tail, place)
    }

    #[test]
    fn a_toc_with_another_digest_than_the_etag_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));
        assert!(verified_toc(&tail, place.clone()).is_ok());
        let other = Digest::of(b"another TOC");

        tail.etag = format!("\"{other}\"");

        let error = verified_toc(&tail, place).unwrap_err();
        let section = "TOC";
        let expected = FormatError::WrongDigest {
            section,
            expected: other,
        };
        assert_eq!(error, expected);
    }

    /// A source that always sends fewer bytes than requested.
    #[derive(Debug)]
    struct ShortSource {
        tail: Tail,
        requests: AtomicUsize,
    }

    impl ArchiveSource for ShortSource {
        fn tail<'a>(
            &'a self,
            _: &'a RepoName,
            _: ArchiveKind,
            _: u64,
            _: Option<&'a str>,
        ) -> Pin<Box<dyn Future<Output = Result<TailAnswer, FetchError>> + Send + 'a>> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(TailAnswer::Tail(self.tail.clone())) })
        }

        fn range(
            &self,
            _: RangeRequest,
        ) -> Pin<Box<dyn Future<Output = Result<BodyStream, FetchError>> + Send + '_>> {
            Box::pin(async { Err(FetchError::Ending) })
        }

        fn refresh<'a>(
            &'a self,
            _: &'a RepoName,
        ) -> Pin<Box<dyn Future<Output = Result<RefreshAnswer, FetchError>> + Send + 'a>> {
            Box::pin(async { Err(FetchError::Ending) })
        }

        fn ensure_refs<'a>(
            &'a self,
            _: &'a RepoName,
            _: &'a EnsureRefsRequest,
        ) -> BoxFuture<'a, Result<EnsureRefsAnswer, FetchError>> {
            Box::pin(async { Err(FetchError::Ending) })
        }

        fn hosts(
            &self,
            _purpose: Purpose,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<String>, FetchError>> + Send + '_>> {
            Box::pin(async { Err(FetchError::Ending) })
        }
    }

    #[tokio::test]
    async fn a_daemon_that_sends_too_little_is_asked_a_limited_number_of_times() {
        let repo = RepoName::parse(testing::REPO).unwrap();
        let (mut tail, _) = tail_of(testing::archive("main", b"pack", &[]));
        let len = tail.bytes.len();
        tail.bytes = tail.bytes.slice(len - 20..);
        let requests = AtomicUsize::new(0);
        let source = ShortSource { tail, requests };

        let ask = |len| current_tail(&source, &repo, len, None).boxed();
        let loaded = load_toc(&repo, source.tail.clone(), ask).await;

        assert!(loaded.is_err());
        assert_eq!(source.requests.into_inner(), MAX_TAIL_REQUESTS - 1);
    }

    #[test]
    fn a_toc_of_another_commit_than_the_daemon_names_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));

        tail.snapshot = SnapshotId::parse(&"9".repeat(40)).unwrap();

        let error = verified_toc(&tail, place).unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_toc_that_is_not_where_its_segments_end_is_refused() {
        let (mut tail, place) = tail_of(testing::archive("main", b"pack", &[]));

        tail.archive_len += 1;

        let error = verified_toc(&tail, place).unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    }
}
