//! How much of what all clients share one address may take.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that all clients share, of which one address gets some at most. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    permits: Arc<Semaphore>,
    each: usize,
    addresses: Addresses,
}

/// The free part of each address's share. Addresses without a place are not in it, unless they wait for one.
type Addresses = Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>;

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    // Fields are dropped in this order: the address is forgotten last.
    _permit: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
    _address: KnownAddress,
}

impl Shares {
    /// `permits`, of which one address gets `each` at most.
    pub(crate) fn new(permits: usize, each: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            each: each.min(Semaphore::MAX_PERMITS),
            addresses: Arc::default(),
        }
    }

    /// `permits`, of which one address leaves a quarter to all others.
    pub(crate) fn leaving_a_quarter(permits: usize) -> Self {
        Self::new(permits, permits - permits / 4)
    }

    /// Waits until a place is free for whoever comes next; `None` never happens.
    pub(crate) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Gives a free place to `address`, unless it has its share already.
    pub(crate) fn take(&self, free: OwnedSemaphorePermit, address: IpAddr) -> Option<Permit> {
        let (known, share) = self.share_of(address);
        Some(Permit {
            _permit: free,
            _of_address: share.try_acquire_owned().ok()?,
            _address: known,
        })
    }

    /// Returns a place for `address`, unless all are taken, or its share is.
    pub(crate) fn try_take(&self, address: IpAddr) -> Option<Permit> {
        let free = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.take(free, address)
    }

    /// Waits for a place for `address`. A client that waits for its share takes no place; `None` never happens.
    pub(crate) async fn wait(&self, address: IpAddr) -> Option<Permit> {
        let (known, share) = self.share_of(address);
        let of_address = share.acquire_owned().await.ok()?;
        Some(Permit {
            _permit: self.free().await?,
            _of_address: of_address,
            _address: known,
        })
    }

    fn share_of(&self, address: IpAddr) -> (KnownAddress, Arc<Semaphore>) {
        let address = network(address);
        let mut all = lock(&self.addresses);
        let share = all.entry(address);
        let share = share.or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        let known = KnownAddress {
            address,
            share: Some(Arc::clone(share)),
            all: Arc::clone(&self.addresses),
        };
        (known, Arc::clone(share))
    }
}

/// Keeps the share of an address known; the last one forgets it.
#[derive(Debug)]
struct KnownAddress {
    address: IpAddr,
    /// `None` once this is dropped.
    share: Option<Arc<Semaphore>>,
    all: Addresses,
}

impl Drop for KnownAddress {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        self.share = None;
        let is_unused = all
            .get(&self.address)
            .is_some_and(|share| Arc::strong_count(share) == 1);
        if is_unused {
            all.remove(&self.address);
        }
    }
}

fn lock(all: &Addresses) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the addresses that count as one client: an owner of one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(shares: &Shares, address: &str) -> Option<Permit> {
        let free = shares.free().await.unwrap();
        shares.take(free, address.parse().unwrap())
    }

    #[tokio::test]
    async fn an_address_gets_its_share_and_no_more() {
        let shares = Shares::new(4, 2);

        let first = take(&shares, "10.0.0.1").await.unwrap();
        let _second = take(&shares, "10.0.0.1").await.unwrap();

        assert!(take(&shares, "10.0.0.1").await.is_none());
        assert!(take(&shares, "::ffff:10.0.0.1").await.is_none());
        let other = take(&shares, "10.0.0.2").await.unwrap();
        drop(first);
        assert!(take(&shares, "10.0.0.1").await.is_some());
        drop(other);
        assert_eq!(
            lock(&shares.addresses).len(),
            1,
            "who has none takes no memory"
        );
    }

    #[tokio::test]
    async fn the_addresses_of_one_network_share() {
        let shares = Shares::new(4, 1);

        let _first = take(&shares, "2001:db8:0:1::1").await.unwrap();

        assert!(take(&shares, "2001:db8:0:1:ffff::2").await.is_none());
        assert!(take(&shares, "2001:db8:0:2::1").await.is_some());
    }

    #[tokio::test]
    async fn a_client_that_waits_for_its_share_holds_up_no_other() {
        let shares = Shares::leaving_a_quarter(4);
        let [crowd, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let taken: Vec<_> = (0..3).map(|_| shares.try_take(crowd).unwrap()).collect();
        assert!(shares.try_take(crowd).is_none());
        let crowding = shares.clone();
        let waiting = tokio::spawn(async move { crowding.wait(crowd).await.unwrap() });
        let gives_up = shares.wait(crowd);
        assert!(futures_util::FutureExt::now_or_never(gives_up).is_none());

        let others = shares.wait(other).await.unwrap();

        assert!(shares.try_take(other).is_none(), "all permits are taken");
        drop((others, taken));
        drop(waiting.await.unwrap());
        assert!(lock(&shares.addresses).is_empty());
    }
}
