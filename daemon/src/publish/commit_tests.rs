//! Tests of [`Commit`], on the shelf of snapshots and on that of LFS archives.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cachewfs_format::{Digest, Manifest, ObjectId, RepoName, SnapshotId};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::PublishError;
use super::attempt::Attempt;
use super::commit::{Commit, Target};
use super::new_id::NewId;
use crate::base::seconds_since_epoch;
use crate::config::Config;
use crate::mirror::Git;
use crate::store::{DiskTier, Holder, Leases, Store, wait};

/// Runs the calls of the store. A publish runs on a thread of a runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A shelf, and what two daemons need to publish to it.
struct World {
    _root: TempDir,
    store: Store,
    repo: RepoName,
    leases: [Leases; 2],
    config: Config,
    without_leases: Config,
    git: Git,
}

impl World {
    /// Returns one world for each kind of shelf.
    fn of_each_shelf() -> [Self; 2] {
        [Store::clone, Store::lfs].map(|shelf: fn(&Store) -> Store| {
            let root = tempfile::tempdir().unwrap();
            let tier = DiskTier::create(root.path(), &root.path().join("tmp")).unwrap();
            let holder = |name: &str| {
                let data_dir = root.path().join(name);
                std::fs::create_dir(&data_dir).unwrap();
                Leases::new(Holder::of_data_dir(&data_dir.into()), Arc::default())
            };
            let mut without_leases = Config::default();
            without_leases.store.lease_ttl = Duration::ZERO;
            Self {
                store: shelf(&Store::new(tier)),
                repo: RepoName::parse("a.org/x").unwrap(),
                leases: [holder("one"), holder("other")],
                config: Config::default(),
                without_leases,
                git: Git::new("/dev/null".into(), CancellationToken::new()),
                _root: root,
            }
        })
    }

    fn target(&self, daemon: usize) -> Target<'_> {
        Target {
            store: &self.store,
            repo: &self.repo,
            leases: &self.leases[daemon],
            config: &self.config,
            git: &self.git,
        }
    }

    /// Publishes a snapshot that has no segments, without a lease.
    fn publish(&self, byte: u8) {
        let target = Target {
            config: &self.without_leases,
            ..self.target(1)
        };
        let build = |commit: &Commit<'_>, ()| self.finish(commit, byte);
        let attempt = Commit::attempt(target, look, build);
        assert_eq!(attempt.unwrap(), Attempt::Done(0));
    }

    fn finish(&self, commit: &Commit<'_>, byte: u8) -> Result<u64, PublishError> {
        let mut manifest = Manifest {
            version: Manifest::VERSION,
            repo: self.repo.clone(),
            snapshot: id(byte),
            refs_digest: Digest::of(&[byte]),
            created_at: seconds_since_epoch(),
            archives: [].into(),
            packs: Vec::new(),
            commit_graphs: Vec::new(),
            tips: Vec::new(),
            runs: Vec::new(),
            notice: None,
            lfs_objects: Vec::new(),
        };
        commit.finish(&mut manifest, Vec::new(), NewId::Fixed)
    }

    fn current(&self) -> Option<SnapshotId> {
        let pointer = wait(self.store.pointer(&self.repo)).unwrap();
        pointer.map(|pointer| pointer.snapshot)
    }
}

fn id(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

/// Finds that something has to be built.
#[expect(clippy::unnecessary_wraps, reason = "a look may fail")]
fn look(_: &Commit<'_>) -> Result<ControlFlow<u64, ()>, PublishError> {
    Ok(ControlFlow::Continue(()))
}

#[test]
fn a_snapshot_that_came_before_the_lease_is_seen() {
    let _runtime = RUNTIME.enter();
    for world in World::of_each_shelf() {
        let looks = Cell::new(0);
        let look = |commit: &Commit<'_>| {
            looks.set(looks.get() + 1);
            if commit.pointer().is_some() {
                return Ok::<_, PublishError>(ControlFlow::Break(world.current()));
            }
            world.publish(1);
            Ok(ControlFlow::Continue(()))
        };

        let attempt = Commit::attempt(world.target(0), look, |_, ()| unreachable!());

        assert_eq!(attempt.unwrap(), Attempt::Done(Some(id(1))));
        assert_eq!(looks.get(), 2);
    }
}

#[test]
fn one_daemon_publishes_at_a_time() {
    let _runtime = RUNTIME.enter();
    for world in World::of_each_shelf() {
        let build = |commit: &Commit<'_>, ()| {
            let other = Commit::attempt(world.target(1), look, |_, ()| unreachable!());
            assert!(matches!(other, Ok(Attempt::HeldBy(_))), "{other:?}");
            world.finish(commit, 1)
        };

        let attempt = Commit::attempt(world.target(0), look, build);

        assert_eq!(attempt.unwrap(), Attempt::Done(0));
        assert_eq!(world.current(), Some(id(1)));
        assert_eq!(
            wait(world.store.pointer(&world.repo))
                .unwrap()
                .unwrap()
                .fence,
            1
        );
        // The lease is free again.
        let build = |commit: &Commit<'_>, ()| world.finish(commit, 2);
        let attempt = Commit::attempt(world.target(1), look, build);
        assert_eq!(attempt.unwrap(), Attempt::Done(0));
    }
}

#[test]
fn a_snapshot_that_came_during_the_build_is_not_replaced() {
    let _runtime = RUNTIME.enter();
    for world in World::of_each_shelf() {
        let build = |commit: &Commit<'_>, ()| {
            world.publish(2);
            world.finish(commit, 1)
        };

        let attempt = Commit::attempt(world.target(0), look, build);

        assert!(matches!(attempt, Err(PublishError::Raced)), "{attempt:?}");
        assert_eq!(world.current(), Some(id(2)));
        assert!(
            wait(world.store.manifest(&world.repo, id(1)))
                .unwrap()
                .is_none()
        );
    }
}

#[test]
fn an_earlier_snapshot_becomes_current_again_without_a_build() {
    let _runtime = RUNTIME.enter();
    for world in World::of_each_shelf() {
        world.publish(1);
        world.publish(2);
        let look = |commit: &Commit<'_>| {
            commit.return_to(id(1))?;
            Ok::<_, PublishError>(ControlFlow::Break(()))
        };

        let attempt = Commit::attempt(world.target(0), look, |_, ()| unreachable!());

        assert_eq!(attempt.unwrap(), Attempt::Done(()));
        assert_eq!(world.current(), Some(id(1)));
    }
}
