//! Limits that all clients share, with a smaller limit for each address.
//!
//! Every limit is a semaphore, and every address has a smaller one of its own. A permit takes one
//! from both, so that a single client can't use up the limit for all others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of permits that all clients share, of which one address gets a limited number.
///
/// Clones share the same permits and are cheap.
#[derive(Clone, Debug)]
pub struct Shares {
    permits: Arc<Semaphore>,
    /// The most permits that one address may hold.
    per_address: usize,
    addresses: Addresses,
}

/// The free permits of each address. An address is listed only while it holds a permit or waits for
/// one.
type Addresses = Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>;

/// One permit of one address. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    // Fields are dropped in this order. The address comes last, because only the drop of its last
    // permit may remove it from the map.
    _permit: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
    _address: KnownAddress,
}

impl Shares {
    /// Creates `permits` permits, of which one address gets `per_address` at most.
    pub fn new(permits: usize, per_address: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            per_address: per_address.min(Semaphore::MAX_PERMITS),
            addresses: Arc::default(),
        }
    }

    /// Creates `permits` permits, of which one address gets three quarters at most.
    pub fn leaving_a_quarter(permits: usize) -> Self {
        Self::new(permits, permits - permits / 4)
    }

    /// Waits for a free permit that is not yet given to any address.
    ///
    /// Never returns `None`: the semaphore is never closed.
    pub async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Gives the free permit to `address`, or returns `None` if `address` holds all the permits
    /// that one address may hold.
    pub fn take(&self, free: OwnedSemaphorePermit, address: IpAddr) -> Option<Permit> {
        let (known, share) = self.share_of(address);
        Some(Permit {
            _permit: free,
            _of_address: share.try_acquire_owned().ok()?,
            _address: known,
        })
    }

    /// Returns a permit for `address` without waiting, or `None` if none is free or `address` holds
    /// all the permits that one address may hold.
    pub fn try_take(&self, address: IpAddr) -> Option<Permit> {
        let free = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.take(free, address)
    }

    /// Waits for a permit for `address`.
    ///
    /// Never returns `None`: the semaphores are never closed.
    pub async fn wait(&self, address: IpAddr) -> Option<Permit> {
        let (known, share) = self.share_of(address);
        // The address's own limit comes first: a client that waits for it must not keep a permit
        // that another address could use.
        let of_address = share.acquire_owned().await.ok()?;
        Some(Permit {
            _permit: self.free().await?,
            _of_address: of_address,
            _address: known,
        })
    }

    fn share_of(&self, address: IpAddr) -> (KnownAddress, Arc<Semaphore>) {
        let address = network(address);
        let mut all = self.addresses.lock();
        let share = all.entry(address);
        let share = share.or_insert_with(|| Arc::new(Semaphore::new(self.per_address)));
        let known = KnownAddress {
            address,
            share: Some(Arc::clone(share)),
            all: Arc::clone(&self.addresses),
        };
        (known, Arc::clone(share))
    }
}

/// Keeps the semaphore of an address in the map. The last one to be dropped removes it, so that an
/// address without permits takes no memory.
#[derive(Debug)]
struct KnownAddress {
    address: IpAddr,
    /// `None` only during the drop.
    share: Option<Arc<Semaphore>>,
    all: Addresses,
}

impl Drop for KnownAddress {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        self.share = None;
        // With our own reference gone, a count of 1 means that only the map holds the semaphore.
        // Nobody can take another reference meanwhile, because the map is locked.
        let is_unused = all
            .get(&self.address)
            .is_some_and(|share| Arc::strong_count(share) == 1);
        if is_unused {
            all.remove(&self.address);
        }
    }
}

/// Returns the network whose addresses count as one client: an IPv4 address, or an IPv6 /64. The
/// owner of one IPv6 address usually has all 2^64 addresses of its /64.
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
    async fn one_address_gets_its_share_and_no_more() {
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
            shares.addresses.lock().len(),
            1,
            "an address without permits takes no memory"
        );
    }

    #[tokio::test]
    async fn the_addresses_of_an_ipv6_network_count_as_one() {
        let shares = Shares::new(4, 1);

        let _first = take(&shares, "2001:db8:0:1::1").await.unwrap();

        assert!(take(&shares, "2001:db8:0:1:ffff::2").await.is_none());
        assert!(take(&shares, "2001:db8:0:2::1").await.is_some());
    }

    #[tokio::test]
    async fn an_address_that_waits_for_its_share_delays_no_other() {
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
        assert!(shares.addresses.lock().is_empty());
    }
}
