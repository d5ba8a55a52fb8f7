//! Runs the contract with a tier, plain and in each wrapper.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keeps_the_contract;
use crate::wrapped::{Count, Wrapped};
use crate::{DiskTier, Tier, TierLimits, Tiers};

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
    fn wrap(self, tier: impl Tier + 'static, count: &Count) -> Arc<dyn Tier> {
        match self {
            Self::Nothing => Arc::new(tier),
            Self::Delaying => Arc::new(Wrapped::delaying(tier, count.clone())),
            Self::Failing => Arc::new(Wrapped::failing(tier)),
            Self::Cutting => Arc::new(Wrapped::cutting(tier)),
        }
    }

    /// Runs the contract with the tier that `build` makes of `tier` in this wrapper.
    pub(crate) async fn run(
        self,
        tier: impl Tier + 'static,
        directory: &TempDir,
        build: impl FnOnce(Arc<dyn Tier>) -> Arc<dyn Tier>,
    ) {
        let count = Count::default();
        let tier = build(self.wrap(tier, &count));
        let tmp = directory.path().join("new");
        std::fs::create_dir(&tmp).unwrap();

        let check = move || keeps_the_contract(&*tier, &tmp);
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

/// Returns tiers over `remote` that keep at most `limit` bytes on disk, with their background
/// tasks.
pub(crate) fn tiers(remote: Arc<dyn Tier>, directory: &TempDir, limit: u64) -> Arc<dyn Tier> {
    let local = disk(directory, "near");
    let limits = TierLimits {
        memory: 16 << 20,
        disk: limit,
    };
    let tmp = directory.path().join("near/tmp");
    let tiers = Tiers::new(remote, (local, tmp), limits);
    tiers.start(&TaskTracker::new(), &CancellationToken::new());
    Arc::new(tiers)
}

/// The limits of the disk: everything fits, or nothing.
pub(crate) const LIMITS: [u64; 2] = [1 << 30, 0];
