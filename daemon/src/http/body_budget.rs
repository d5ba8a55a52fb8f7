//! A budget for the request bodies that the daemon keeps on disk or in memory, shared by all
//! clients.

use std::net::IpAddr;

use crate::base::{Permit, Shares};

/// The unit of the budget, in bytes.
const PIECE_LEN: u64 = 64 << 10;

/// A budget for request bodies. One address gets three quarters of it at most.
#[derive(Debug)]
pub(super) struct BodyBudget {
    shares: Shares,
    exempt_len: u64,
}

/// The part of the budget that one body uses, until it is dropped.
#[derive(Debug)]
pub(super) struct BodyReservation {
    shares: Shares,
    exempt_len: u64,
    client: IpAddr,
    permits: Vec<Permit>,
}

impl BodyBudget {
    /// Creates a budget of `max_bytes`.
    ///
    /// The first `exempt_len` bytes of each body don't count, so that ordinary requests are never
    /// refused. The number of connections bounds these bytes.
    pub(super) fn new(max_bytes: u64, exempt_len: u64) -> Self {
        let pieces = usize::try_from(max_bytes / PIECE_LEN).unwrap_or(usize::MAX);
        Self {
            shares: Shares::leaving_a_quarter(pieces),
            exempt_len,
        }
    }

    /// Starts the reservation of a body that comes from `client`.
    pub(super) fn reserve(&self, client: IpAddr) -> BodyReservation {
        BodyReservation {
            shares: self.shares.clone(),
            exempt_len: self.exempt_len,
            client,
            permits: Vec::new(),
        }
    }
}

impl BodyReservation {
    /// Grows the reservation to a body of `len` bytes. Returns whether the budget allows it.
    pub(super) fn grow_to(&mut self, len: u64) -> bool {
        let pieces = len.saturating_sub(self.exempt_len).div_ceil(PIECE_LEN);
        while (self.permits.len() as u64) < pieces {
            match self.shares.try_take(self.client) {
                Some(permit) => self.permits.push(permit),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_a_quarter_and_short_bodies_are_exempt() {
        let budget = BodyBudget::new(4 * PIECE_LEN, 100);
        let [large, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let mut first = budget.reserve(large);

        assert!(first.grow_to(3 * PIECE_LEN + 100));

        let mut second = budget.reserve(large);
        assert!(second.grow_to(100) && !second.grow_to(101));
        let mut third = budget.reserve(other);
        assert!(third.grow_to(101) && !third.grow_to(PIECE_LEN + 101));
        drop(first);
        assert!(second.grow_to(101));
    }
}
