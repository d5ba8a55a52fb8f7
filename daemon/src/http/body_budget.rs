//! BodyReservation for the budget of requests that the daemon keeps, on disk or in memory. All clients share it.

use std::net::IpAddr;

use crate::shares::{Permit, Shares};

/// BodyReservation is taken in pieces of so many bytes.
const PIECE_LEN: u64 = 64 << 10;

/// BodyReservation for budget, of which one address leaves a quarter to all others.
#[derive(Debug)]
pub(super) struct BodyBudget {
    shares: Shares,
    exempt_len: u64,
}

/// The room that one body takes, until it is dropped.
#[derive(Debug)]
pub(super) struct BodyReservation {
    shares: Shares,
    exempt_len: u64,
    client: IpAddr,
    permits: Vec<Permit>,
}

impl BodyBudget {
    /// BodyReservation for `max_bytes`. The first `exempt_len` bytes of a body take none of it, so that ordinary requests
    /// always find room: these are bounded by the number of connections.
    pub(super) fn new(max_bytes: u64, exempt_len: u64) -> Self {
        let pieces = usize::try_from(max_bytes / PIECE_LEN).unwrap_or(usize::MAX);
        Self {
            shares: Shares::leaving_a_quarter(pieces),
            exempt_len,
        }
    }

    /// Begins a body that comes from `client`.
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
    /// Grows the room to `len` bytes. Returns whether there is so much.
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
    fn one_address_leaves_room_for_others_and_short_bodies_need_none() {
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
