//! How much of what all clients share one address may take.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that all clients share, of which one address gets some at most.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    places: Arc<Semaphore>,
    each: usize,
    /// How many each address has now; none that has none.
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Shares {
    /// `places`, of which one address gets `each` at most.
    pub(super) fn new(places: usize, each: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            each,
            taken: Arc::default(),
        }
    }

    /// Waits until a place is free for whoever comes next; `None` never happens.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Gives a free place to `address`, unless it has its share already.
    pub(super) fn take(&self, free: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut all = lock(&self.taken);
        let taken = all.entry(address).or_default();
        if *taken >= self.each {
            return None;
        }
        *taken += 1;
        Some(Place {
            address,
            taken: Arc::clone(&self.taken),
            _permit: free,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.taken);
        if let Some(taken) = all.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.address);
            }
        }
    }
}

fn lock(taken: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What belongs to one client: who has one address of IPv6 has 2^64 of them.
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

    async fn take(shares: &Shares, address: &str) -> Option<Place> {
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
        assert_eq!(lock(&shares.taken).len(), 1, "who has none takes no memory");
    }

    #[tokio::test]
    async fn the_addresses_of_one_network_share() {
        let shares = Shares::new(4, 1);

        let _first = take(&shares, "2001:db8:0:1::1").await.unwrap();

        assert!(take(&shares, "2001:db8:0:1:ffff::2").await.is_none());
        assert!(take(&shares, "2001:db8:0:2::1").await.is_some());
    }
}
