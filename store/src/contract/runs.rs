//! Runs the contract with a tier, plain and in each wrapper.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keeps_the_contract;
use crate::wrapped::{Count, Wrapped};
use crate::{BucketTier, Copies, CopyLimits, DiskTier, Objects, Tiers};

/// The wrapper of a tier.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrapper {
    Nothing,
    /// Delays each call; its run also checks that calls are counted.
    Delaying,
    Failing,
    Cutting,
}

pub(crate) const WRAPPERS: [Wrapper; 4] = [
    Wrapper::Nothing,
    Wrapper::Delaying,
    Wrapper::Failing,
    Wrapper::Cutting,
];

impl Wrapper {
    fn wrap(self, tiers: Tiers, count: &Count) -> Tiers {
        let wrapped = match self {
            Self::Nothing => return tiers,
            Self::Delaying => Wrapped::delaying(objects(tiers), count.clone()),
            Self::Failing => Wrapped::failing(objects(tiers)),
            Self::Cutting => Wrapped::cutting(objects(tiers)),
        };
        BucketTier::new(Arc::new(wrapped)).into()
    }

    /// Runs the contract with the tiers that `build` makes of `tier` in this wrapper.
    pub(crate) async fn run(
        self,
        tier: impl Into<Tiers>,
        directory: &TempDir,
        build: impl FnOnce(Tiers) -> Tiers,
    ) {
        let count = Count::default();
        let tiers = build(self.wrap(tier.into(), &count));
        let tmp = directory.path().join("new");
        std::fs::create_dir(&tmp).unwrap();

        let check = move || keeps_the_contract(&tiers, &tmp);
        let failures = tokio::task::spawn_blocking(check).await.unwrap();

        match self {
            Self::Nothing => assert_eq!(failures, 0),
            Self::Delaying => assert!(failures == 0 && count.take() > 100),
            Self::Failing | Self::Cutting => assert!(failures > 0),
        }
    }
}

pub(crate) fn disk(directory: &TempDir, name: &str) -> DiskTier {
    let root = directory.path().join(name);
    DiskTier::create(&root, &root.join("tmp")).unwrap()
}

/// Returns the objects of a single tier.
fn objects(tiers: Tiers) -> Arc<dyn Objects> {
    match tiers {
        Tiers::Directory(disk) => Arc::new(disk),
        Tiers::Bucket(bucket) => bucket.objects,
        Tiers::Copies(copies) => copies,
    }
}

/// Returns copies of `remote`, at most `limit` bytes of them on disk, with their background tasks.
pub(crate) fn copies(remote: Tiers, directory: &TempDir, limit: u64) -> Tiers {
    let local = disk(directory, "near");
    let limits = CopyLimits {
        memory: 16 << 20,
        disk: limit,
    };
    let tmp = directory.path().join("near/tmp");
    let copies = Copies::new(BucketTier::new(objects(remote)), (local, tmp), limits);
    copies.start(&TaskTracker::new(), &CancellationToken::new());
    copies.into()
}

/// The limits of the disk: everything fits, or nothing.
pub(crate) const LIMITS: [u64; 2] = [1 << 30, 0];
