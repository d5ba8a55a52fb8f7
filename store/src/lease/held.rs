//! [`Lease`]: a lease that this daemon holds. A thread renews it; dropping it releases it.
//!
//! A lease is for a publish, which runs on a thread that may block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cachewfs_base::chain;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::error::LeaseError;
use super::judge::ClaimedLease;
use super::record::LeaseRecord;
use crate::Store;
use crate::key::Key;
use crate::lease::{LeaseEvent, LeaseMetrics};
use crate::objects::Written;

/// How often a lease is renewed within its time to live: one renewal may fail, and another one be
/// late.
const RENEWALS: u32 = 3;

/// A lease that this daemon holds. Dropping it releases it, and blocks until it is released.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<HeldLease>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct HeldLease {
    store: Store,
    /// Runs the calls of the store.
    runtime: Handle,
    key: Key,
    metrics: Arc<LeaseMetrics>,
    token: u64,
    is_lost: AtomicBool,
    /// Locked during a renewal, so that one caller renews and the others see the outcome.
    claimed: Mutex<ClaimedLease>,
}

/// Whether a lease is still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Held,
    Lost,
}

impl Lease {
    /// Starts the thread that renews a lease that was just claimed, in the runtime of the caller.
    pub(super) fn hold(
        (store, key): (Store, Key),
        claimed: ClaimedLease,
        metrics: Arc<LeaseMetrics>,
    ) -> Result<Self, LeaseError> {
        let interval = claimed.record.ttl() / RENEWALS;
        let shared = Arc::new(HeldLease {
            store,
            runtime: Handle::current(),
            key,
            metrics,
            token: claimed.record.token,
            is_lost: AtomicBool::new(false),
            claimed: Mutex::new(claimed),
        });
        let (stop, stopped) = channel();
        let renews = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || renews.renew_until(&stopped, interval))
            .map_err(LeaseError::NoThread)?;
        Ok(Self {
            shared,
            thread: Some((stop, thread)),
        })
    }

    /// Returns the token of the lease, which is higher than the tokens of all holders before.
    pub fn token(&self) -> u64 {
        self.shared.token
    }

    /// Returns whether another daemon has taken the lease over. If this can't be found out, returns
    /// `false`: publishing is safe without a lease. Blocks.
    pub fn is_lost(&self) -> bool {
        self.is_known_lost() || self.shared.is_lost_by_now()
    }

    /// Returns whether the loss has been noticed already. Sends no request.
    pub fn is_known_lost(&self) -> bool {
        self.shared.is_lost.load(Ordering::Acquire)
    }

    /// Leaves the lease as it is, like a daemon that is killed.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            self.shared.is_lost.store(true, Ordering::Release);
            drop(stop);
            thread.join().unwrap();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            // Wakes the thread, which releases the lease.
            drop(stop);
            // The panic hook has reported a panic of the thread.
            thread.join().ok();
        }
    }
}

impl HeldLease {
    fn renew_until(&self, stopped: &Receiver<()>, interval: Duration) {
        let mut has_failed = false;
        loop {
            if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            match self.renew(&mut self.claimed.lock()) {
                Ok(LeaseState::Held) => has_failed = false,
                Ok(LeaseState::Lost) => return,
                Err(error) => {
                    let (lease, error) = (&self.key, chain(&error));
                    // Once for each outage, and not at each renewal.
                    if !has_failed {
                        warn!(%lease, error, "A lease can't be renewed; the publish goes on");
                    }
                    has_failed = true;
                }
            }
        }
        if !self.is_lost.load(Ordering::Acquire)
            && let Err(error) = self.swap(&mut self.claimed.lock(), LeaseRecord::released)
        {
            let (lease, error) = (&self.key, chain(&error));
            debug!(%lease, error, "A lease is left to expire");
        }
    }

    /// Renews the lease if it may have expired. Returns whether it is lost.
    fn is_lost_by_now(&self) -> bool {
        let mut claimed = self.claimed.lock();
        if !claimed.may_be_lost(Instant::now()) {
            return false;
        }
        matches!(self.renew(&mut claimed), Ok(LeaseState::Lost))
    }

    fn renew(&self, claimed: &mut ClaimedLease) -> Result<LeaseState, LeaseError> {
        let state = self.swap(claimed, LeaseRecord::renewed)?;
        if state == LeaseState::Lost && !self.is_lost.swap(true, Ordering::AcqRel) {
            self.metrics.note(LeaseEvent::Lost);
            warn!(lease = %self.key, "A lease was lost: another daemon has taken it over");
        }
        Ok(state)
    }

    /// Replaces the lease by `next` of it, unless it belongs to another daemon. Blocks.
    fn swap(
        &self,
        claimed: &mut ClaimedLease,
        next: fn(&LeaseRecord) -> LeaseRecord,
    ) -> Result<LeaseState, LeaseError> {
        self.runtime.block_on(self.replace(claimed, next))
    }

    async fn replace(
        &self,
        claimed: &mut ClaimedLease,
        next: fn(&LeaseRecord) -> LeaseRecord,
    ) -> Result<LeaseState, LeaseError> {
        // Taken before the read: the new time to live must not begin later for the holder than for
        // others.
        let began = Instant::now();
        let objects = self.store.nearest();
        let Some(found) = objects.read_whole(&self.key).await? else {
            return Ok(LeaseState::Lost);
        };
        // A lease that can't be parsed is of a newer daemon, or damaged: not this daemon's.
        let present = LeaseRecord::parse(&found.bytes).ok();
        let Some(present) = present.filter(|it| claimed.record.is_of_same_claim(it)) else {
            return Ok(LeaseState::Lost);
        };
        let record = next(&present);
        let json = record.to_json()?;
        let swapped = objects.swap(&self.key, Some(&found.version), &json);
        match swapped.await? {
            Written::New => {
                *claimed = ClaimedLease::written(record, began);
                Ok(LeaseState::Held)
            }
            // While the lease is held, only a daemon that takes it over writes it.
            Written::TooLate => Ok(LeaseState::Lost),
        }
    }
}
