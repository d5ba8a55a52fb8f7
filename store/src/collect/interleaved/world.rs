//! The world of the model: a store, time and randomness for actors of which one runs at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use cachewfs_format::{Digest, Manifest, Pointer, SegmentId, SnapshotId};

use crate::clock::{Clock, NoticePeriod};
use crate::key::{Key, Object, Shelf, ShelfPart};
use crate::objects::{Listed, Stat, Version};
use crate::wrapped::outage;
use crate::{BucketTier, Store, TierError};

pub(super) const NOTICE: NoticePeriod = NoticePeriod(Duration::from_mins(1));

/// Random numbers. Equal seeds give equal numbers.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// Returns a random number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The event that an actor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Its call must be carried out by this time.
    Call(Duration),
    /// Its turn, at any time.
    Turn,
    /// This time.
    Until(Duration),
    /// The actor has ended.
    Ended,
}

#[derive(Debug)]
pub(super) struct WorldState {
    now: Duration,
    chance: Chance,
    waiting: Vec<Waiting>,
    /// The actor whose turn it is.
    running: Option<usize>,
    is_calm: bool,
    pub(super) objects: BTreeMap<Key, (Vec<u8>, Duration, u64)>,
    writes: u64,
    /// The digest of each manifest that ever existed, to find a manifest that is written twice.
    manifests: HashMap<Key, Digest>,
    broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<WorldState>,
    turn: Condvar,
}

/// A user of the store, which is also its store and its clock.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    world: Arc<World>,
    number: usize,
    /// The speed of its clock in percent.
    rate: u32,
    is_dead: Arc<Mutex<bool>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let state = WorldState {
            now: Duration::from_hours(1000),
            chance: Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            waiting: Vec::new(),
            running: None,
            is_calm: false,
            objects: BTreeMap::new(),
            writes: 0,
            manifests: HashMap::new(),
            broken: None,
        };
        Self {
            state: Mutex::new(state),
            turn: Condvar::new(),
        }
    }

    /// Returns the first invariant that was broken.
    pub(super) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Adds an actor and waits for its first turn.
    pub(super) fn enter(self: &Arc<Self>, number: usize) -> Actor {
        let mut state = self.lock();
        if state.waiting.len() <= number {
            state.waiting.resize(number + 1, Waiting::Ended);
        }
        state.waiting[number] = Waiting::Turn;
        self.turn.notify_all();
        let mut state = self.wait_for(state, number);
        let rate = 90 + u32::try_from(state.chance.below(21)).unwrap();
        drop(state);
        Actor {
            world: Arc::clone(self),
            number,
            rate,
            is_dead: Arc::default(),
        }
    }

    /// Lets the five actors begin once all have entered.
    pub(super) fn start(&self) {
        let mut state = self.lock();
        while state.waiting.len() < 5 || state.waiting.contains(&Waiting::Ended) {
            state = self.turn.wait(state).unwrap();
        }
        self.pass_on(&mut state);
    }

    /// Ends all accidents and returns an actor that is alone.
    pub(super) fn calm(self: &Arc<Self>) -> Actor {
        {
            let mut state = self.lock();
            state.is_calm = true;
            state.now += NOTICE.0 * 10;
            state.waiting = vec![Waiting::Turn];
            state.running = Some(0);
        }
        Actor {
            world: Arc::clone(self),
            number: 0,
            rate: 100,
            is_dead: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap()
    }

    /// Chooses the next actor and how much time passes until its turn.
    fn pass_on(&self, state: &mut WorldState) {
        let notice = u64::try_from(NOTICE.0.as_millis()).unwrap();
        let leap = match state.chance.below(40) {
            _ if state.is_calm => 10,
            0 => notice * 2,
            1..=8 => notice / 8,
            _ => 200,
        };
        let then = state.now + Duration::from_millis(state.chance.below(leap));
        let call = |waiting: &Waiting| match waiting {
            Waiting::Call(by) => Some(*by),
            _ => None,
        };
        // Time never passes the moment by which a call must have been carried out.
        let first = state.waiting.iter().filter_map(call).min();
        state.now = then.min(first.unwrap_or(then)).max(state.now);
        let now = state.now;
        if let Some(actor) = state
            .waiting
            .iter()
            .position(|of| *of == Waiting::Call(now))
        {
            state.running = Some(actor);
            self.turn.notify_all();
            return;
        }
        let is_ready = |waiting: &Waiting| match waiting {
            Waiting::Call(_) | Waiting::Turn => true,
            Waiting::Until(time) => *time <= now,
            Waiting::Ended => false,
        };
        let ready: Vec<_> = (0..state.waiting.len())
            .filter(|&actor| is_ready(&state.waiting[actor]))
            .collect();
        if ready.is_empty() {
            let wakes = state.waiting.iter().filter_map(|waiting| match waiting {
                Waiting::Until(time) => Some(*time),
                _ => None,
            });
            match wakes.min() {
                Some(time) => {
                    state.now = time;
                    self.pass_on(state);
                }
                None => state.running = None,
            }
            return;
        }
        let index = state.chance.below(ready.len() as u64);
        state.running = Some(ready[usize::try_from(index).unwrap()]);
        self.turn.notify_all();
    }

    fn wait_for<'a>(
        &'a self,
        mut state: MutexGuard<'a, WorldState>,
        actor: usize,
    ) -> MutexGuard<'a, WorldState> {
        while state.running != Some(actor) {
            state = self.turn.wait(state).unwrap();
        }
        state
    }
}

impl Actor {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Returns a store for a new life of the actor, after the last life has ended.
    pub(super) fn store(&self) -> Store {
        *self.is_dead.lock().unwrap() = false;
        let store = Store::new(BucketTier::new(Arc::new(self.clone()))).with_notice(NOTICE);
        store.with_clock(self.clone())
    }

    pub(super) fn chance(&self, limit: u64) -> u64 {
        self.world.lock().chance.below(limit)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.world.lock().broken.is_some()
    }

    /// Lets others run until `waiting` is over.
    fn wait(&self, waiting: Waiting) -> MutexGuard<'_, WorldState> {
        let mut state = self.world.lock();
        state.waiting[self.number] = waiting;
        self.world.pass_on(&mut state);
        self.world.wait_for(state, self.number)
    }

    pub(super) fn end(&self) {
        let mut state = self.world.lock();
        state.waiting[self.number] = Waiting::Ended;
        self.world.pass_on(&mut state);
    }

    /// Makes one call of the store, at which the actor may die before or after it is carried out.
    pub(super) fn call<T>(
        &self,
        key: &Key,
        carry_out: impl FnOnce(&mut WorldState) -> T,
    ) -> Result<T, TierError> {
        let died = || TierError::Bucket {
            key: key.boxed(),
            source: outage(),
        };
        if *self.is_dead.lock().unwrap() {
            return Err(died());
        }
        let by = self.world.lock().now + NOTICE.write_limit();
        let mut state = self.wait(Waiting::Call(by));
        let accident = if state.is_calm {
            2
        } else {
            state.chance.below(60)
        };
        if accident == 0 {
            *self.is_dead.lock().unwrap() = true;
            return Err(died());
        }
        let outcome = carry_out(&mut state);
        drop(state);
        if accident == 1 {
            *self.is_dead.lock().unwrap() = true;
            return Err(died());
        }
        drop(self.wait(Waiting::Turn));
        Ok(outcome)
    }
}

#[async_trait]
impl Clock for Actor {
    fn now(&self) -> Duration {
        self.world.lock().now * self.rate / 100
    }

    async fn pause(&self, time: Duration) {
        let until = self.world.lock().now + time * 100 / self.rate;
        drop(self.wait(Waiting::Until(until)));
    }
}

impl WorldState {
    pub(super) fn version(&self, key: &Key) -> Option<Version> {
        let (_, _, number) = self.objects.get(key)?;
        Some(Version::new(number.to_string()))
    }

    pub(super) fn write(&mut self, key: &Key, bytes: &[u8]) {
        self.writes += 1;
        let object = (bytes.to_vec(), self.now, self.writes);
        self.objects.insert(key.clone(), object);
        if matches!(key.object, Object::Manifest(_)) {
            let digest = Digest::of(bytes);
            let first = *self.manifests.entry(key.clone()).or_insert(digest);
            if first != digest {
                self.break_promise(format!("{key} has other bytes than before"));
            }
        }
        self.check();
    }

    fn break_promise(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// Checks that every manifest has all its segments and the pointer its manifest.
    pub(super) fn check(&mut self) {
        let mut broken = None;
        for (key, (bytes, ..)) in &self.objects {
            let named: HashSet<Key> = match key.object {
                Object::Manifest(_) => Manifest::parse(bytes)
                    .unwrap()
                    .segments()
                    .into_iter()
                    .map(|id| Key::segment(&key.shelf, id))
                    .collect(),
                Object::Pointer => {
                    let pointer = Pointer::parse(bytes).unwrap();
                    [Key::manifest(&key.shelf, pointer.snapshot)].into()
                }
                _ => continue,
            };
            let missing = named.iter().find(|named| !self.objects.contains_key(named));
            if let Some(missing) = missing {
                broken = Some(format!("{key} names {missing}"));
            }
        }
        if let Some(broken) = broken {
            self.break_promise(broken);
        }
    }

    pub(super) fn listed(&self, shelf: &Shelf, part: ShelfPart) -> Vec<Listed> {
        let is_of = |object| match part {
            ShelfPart::Manifests => matches!(object, Object::Manifest(_)),
            ShelfPart::Segments => matches!(object, Object::Segment(_)),
        };
        let objects = self.objects.iter();
        let objects = objects.filter(|(key, _)| key.shelf == *shelf && is_of(key.object));
        objects
            .map(|(key, (bytes, at, _))| Listed {
                object: key.object,
                stat: stat(bytes, *at),
            })
            .collect()
    }
}

impl World {
    /// Returns the snapshots, the named segments and the segments that exist.
    pub(super) fn left(&self) -> (HashSet<SnapshotId>, HashSet<SegmentId>, HashSet<SegmentId>) {
        let state = self.lock();
        let (mut snapshots, mut named, mut present) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        for (key, (bytes, ..)) in &state.objects {
            match key.object {
                Object::Manifest(id) => {
                    snapshots.insert(id);
                    named.extend(Manifest::parse(bytes).unwrap().segments());
                }
                Object::Segment(id) => drop(present.insert(id)),
                _ => {}
            }
        }
        (snapshots, named, present)
    }
}

/// Returns the stat of an object. The store's clock has whole seconds, as in S3.
pub(super) fn stat(bytes: &[u8], at: Duration) -> Stat {
    Stat {
        len: bytes.len() as u64,
        stored_at: UNIX_EPOCH + Duration::from_secs(at.as_secs()),
    }
}
