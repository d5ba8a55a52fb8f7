//! Helpers of unit tests: archives, a source of them that follows a script, and a bench.

mod archive;
mod bench;
pub(crate) mod scripted;

pub(crate) use archive::{Archive, COMMIT, REPO, archive, archive_with_index, index_parts};
pub(crate) use bench::{Bench, bench, bench_with_cache, can_mount};
