//! The actors of the model: publishers and collectors.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Digest, Manifest, ObjectId, Pointer, RepoName, SegmentId,
    SegmentRef, SnapshotId,
};

use super::world::{Actor, NOTICE, World};
use crate::clock::{Clock as _, NoticePeriod};
use crate::testing::now;
use crate::{Collection, Keep, NewSegment, Protection, Store, StoreError, Written};

/// How many different segments and commits the actors use: few, so that they often meet.
const SEGMENTS: u64 = 10;
const COMMITS: u64 = 5;

/// Deliberate mistakes of actors, which the model must discover.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Publishers protect their segments long before they write.
    pub(super) looks_before_it_builds: bool,
    /// Collectors wait for a much shorter notice period than publishers assume.
    pub(super) hardly_waits: bool,
}

fn repo() -> RepoName {
    RepoName::parse("example.com/a").unwrap()
}

fn segment(number: u64) -> SegmentId {
    SegmentId(Digest::of(&number.to_be_bytes()))
}

/// Publishes a few times.
pub(super) fn publisher(actor: &Actor, habits: Habits) {
    for _ in 0..6 {
        let mut store = actor.store();
        if habits.looks_before_it_builds {
            store = store.with_notice(NoticePeriod(Duration::MAX / 8));
        }
        // After any failure it publishes again.
        if actor.chance(4) == 0 {
            publish_again(actor, &store).ok();
        } else {
            publish(actor, &store, habits).ok();
        }
        if actor.is_broken() {
            break;
        }
    }
    actor.end();
}

/// Publishes a snapshot with some segments of the current one and some others.
fn publish(actor: &Actor, store: &Store, habits: Habits) -> Result<(), StoreError> {
    let repo = repo();
    let pointer = now(store.pointer(&repo))?;
    let old = match &pointer {
        Some(pointer) => now(store.current_manifest(&repo, pointer))?.segments(),
        None => HashSet::new(),
    };
    let mut old: Vec<_> = old.into_iter().collect();
    old.sort_unstable();
    old.retain(|_| actor.chance(2) == 0);
    let new: Vec<_> = (0..=actor.chance(3))
        .map(|_| segment(actor.chance(SEGMENTS)))
        .collect();
    let named: HashSet<_> = old.into_iter().chain(new.clone()).collect();
    let early = habits
        .looks_before_it_builds
        .then(|| now(store.protect(&repo, (None, &HashSet::new()), || false)))
        .transpose()?;
    let minutes = u32::try_from(actor.chance(8)).unwrap();
    now(actor.pause(NOTICE.0 / 4 * minutes));
    let new_segment = |id| NewSegment {
        id,
        file: PathBuf::new(),
        len: 1,
    };
    now(store.put_segments(&repo, new.into_iter().map(new_segment).collect()))?;
    let protection = match early {
        Some(early) => early,
        None => now(store.protect(&repo, (None, &named), || false))?,
    };
    let id = free_id(actor, store, &protection)?;
    let manifest = manifest(id, &named, actor.chance(u64::MAX));
    let (written, digest) = now(store.put_manifest(&manifest, &protection))?;
    if written == Written::New {
        point_to(store, (id, digest), (pointer.as_ref(), &protection))?;
    }
    Ok(())
}

/// Makes an existing snapshot current again, as the publisher of LFS archives does.
fn publish_again(actor: &Actor, store: &Store) -> Result<(), StoreError> {
    let repo = repo();
    let pointer = now(store.pointer(&repo))?;
    let snapshots = now(store.snapshots(&repo))?;
    if snapshots.is_empty() {
        return Ok(());
    }
    let index = actor.chance(snapshots.len() as u64);
    let id = snapshots[usize::try_from(index).unwrap()];
    let protection = now(store.protect(&repo, (Some(id), &HashSet::new()), || false))?;
    let Some((_, digest)) = now(store.manifest(&repo, id))? else {
        return Ok(());
    };
    point_to(store, (id, digest), (pointer.as_ref(), &protection))
}

fn free_id(
    actor: &Actor,
    store: &Store,
    protection: &Protection,
) -> Result<SnapshotId, StoreError> {
    let commit = u8::try_from(actor.chance(COMMITS)).unwrap();
    let commit = ObjectId::from_bytes(&[commit; 20]).unwrap();
    let mut id = SnapshotId::first(commit);
    while protection.is_used(id) || now(store.manifest_written_at(&repo(), id))?.is_some() {
        let other = Digest::of(&actor.chance(20).to_be_bytes());
        id = SnapshotId::later(commit, &other);
    }
    Ok(id)
}

fn point_to(
    store: &Store,
    (snapshot, manifest): (SnapshotId, Digest),
    (expected, protection): (Option<&Pointer>, &Protection),
) -> Result<(), StoreError> {
    let replaced = expected.map(|old| old.replaced_by(snapshot, 0));
    let pointer = Pointer {
        version: Pointer::VERSION,
        snapshot,
        manifest,
        archives: BTreeMap::new(),
        published_at: 0,
        replaced: replaced.unwrap_or_default(),
        notice: None,
        fence: 0,
    };
    now(store.swap_pointer(&repo(), (expected, &pointer), protection))?;
    Ok(())
}

fn manifest(snapshot: SnapshotId, named: &HashSet<SegmentId>, chance: u64) -> Manifest {
    let mut segments: Vec<_> = named.iter().map(|&id| SegmentRef { id, len: 1 }).collect();
    segments.sort_unstable_by_key(|segment| segment.id);
    let tail = segments.pop().unwrap();
    let layout = ArchiveLayout {
        toc: Digest::of(&chance.to_be_bytes()),
        size: segments.len() as u64 + 1,
        segments,
        tail,
    };
    Manifest {
        version: Manifest::VERSION,
        repo: repo(),
        snapshot,
        refs_digest: Digest::of(b"refs"),
        created_at: 0,
        archives: [(ArchiveKind::Checkout, layout)].into(),
        packs: Vec::new(),
        commit_graphs: Vec::new(),
        tips: Vec::new(),
        runs: Vec::new(),
        notice: None,
        lfs_objects: Vec::new(),
    }
}

fn collection(actor: &Actor) -> Collection<'static> {
    let keep = Keep {
        snapshots: 1 + usize::try_from(actor.chance(2)).unwrap(),
        age: NOTICE.0 * u32::try_from(actor.chance(3)).unwrap(),
        // As if there were hardly a grace period: safety must not rest on it.
        grace: NOTICE.0 * u32::try_from(actor.chance(2)).unwrap(),
    };
    Collection {
        keep,
        is_dry_run: false,
        is_stopping: &|| false,
    }
}

/// Collects a few times.
pub(super) fn collector(actor: &Actor, habits: Habits) {
    for _ in 0..5 {
        let mut store = actor.store();
        if habits.hardly_waits {
            store = store.with_notice(NoticePeriod(NOTICE.0 / 20));
        }
        now(store.collect(&repo(), collection(actor))).ok();
        now(actor.pause(NOTICE.0));
        if actor.is_broken() {
            break;
        }
    }
    actor.end();
}

/// Runs a last collection and checks that exactly the named segments are left.
pub(super) fn settle(world: &Arc<World>) -> Result<(), String> {
    let actor = world.calm();
    let keep = Keep {
        snapshots: 1,
        age: Duration::ZERO,
        grace: Duration::ZERO,
    };
    let collection = Collection {
        keep,
        is_dry_run: false,
        is_stopping: &|| false,
    };
    let store = actor.store();
    let collected = now(store.collect(&repo(), collection));
    let collected = collected.map_err(|error| format!("{error:?}"))?;
    let pointer = now(store.pointer(&repo())).unwrap();
    let (snapshots, named, present) = world.left();
    let current = pointer
        .map(|pointer| pointer.snapshot)
        .into_iter()
        .collect();
    if snapshots != current || named != present || !collected.missing.is_empty() {
        return Err(format!(
            "{snapshots:?} of {current:?}, {named:?} of {present:?}, {collected:?}"
        ));
    }
    world.broken().map_or(Ok(()), Err)
}
