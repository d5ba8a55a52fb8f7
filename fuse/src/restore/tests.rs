//! Restores of an archive in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::RepoName;
use cachewfs_format::api::EnsureRefsRequest;
use tempfile::TempDir;

use super::{ObjectsPart, Restore, RestoreError, RestoreOptions};
use crate::cache::Cache;
use crate::segment::{Backend, Segments};
use crate::testing::scripted::{RangeFault, ScriptedSource};
use crate::testing::{self, Archive, REPO};

/// Restores an archive below a new directory.
async fn restore(archive: Archive, faults: Vec<RangeFault>) -> (TempDir, Result<(), RestoreError>) {
    let directory = tempfile::tempdir().unwrap();
    let source = ScriptedSource::new(archive.bytes, archive.snapshot, archive.etag);
    source.fail_with(faults);
    let cache_dir = directory.path().join("cache");
    let cache = Cache::open(&cache_dir, u64::MAX).unwrap();
    let backend = Backend::new(source, cache, Arc::default(), Duration::from_secs(5));
    let options = RestoreOptions {
        repo: RepoName::parse(REPO).unwrap(),
        daemons: Vec::new(),
        from: None,
        token_file: None,
        cache_dir,
        is_cache_shared: false,
        is_bare: false,
        wanted: EnsureRefsRequest::default(),
    };
    let git_dir = directory.path().join("git");
    std::fs::create_dir(&git_dir).unwrap();
    let outcome = async {
        let segments = Arc::new(Segments::new(Arc::new(backend)));
        let restore = Restore::find(&options, segments, |_| ()).await?;
        let places = (&*git_dir, &*git_dir);
        let all = ObjectsPart::All;
        let written = restore.write_missing_objects(all, places, |_| ()).await;
        restore.finish().await?;
        written
    };
    let outcome = outcome.await;
    (directory, outcome)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn packs_are_written_and_nothing_that_runs() {
    let faults = vec![RangeFault::Corrupt(3), RangeFault::Cut(2)];

    let (directory, outcome) = restore(testing::archive("main", b"pack", &[]), faults).await;

    outcome.unwrap();
    // The archive also has a hook, and a configuration that names one.
    let git_dir = directory.path().join("git");
    assert_eq!(names(&git_dir), ["objects"]);
    let packs = names(&git_dir.join("objects/pack"));
    let ends: Vec<_> = packs
        .iter()
        .filter_map(|name| name.rsplit('.').next())
        .collect();
    assert_eq!(ends, ["idx", "keep", "pack"]);
}
