//! Room for the bodies of requests that the daemon keeps, on disk or in memory. All clients share it.

use std::net::IpAddr;

use crate::shares::{Place, Shares};

/// Room is taken in pieces of so many bytes.
const PIECE_LEN: u64 = 64 << 10;

/// Room for bodies, of which one address leaves a quarter to all others.
#[derive(Debug)]
pub(super) struct Bodies {
    shares: Shares,
    free_len: u64,
}

/// The room that one body takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    shares: Shares,
    free_len: u64,
    client: IpAddr,
    places: Vec<Place>,
}

impl Bodies {
    /// Room for `max_bytes`. The first `free_len` bytes of a body take none of it, so that ordinary requests
    /// always find room: these are bounded by the number of connections.
    pub(super) fn new(max_bytes: u64, free_len: u64) -> Self {
        let pieces = usize::try_from(max_bytes / PIECE_LEN).unwrap_or(usize::MAX);
        Self {
            shares: Shares::leaving_a_quarter(pieces),
            free_len,
        }
    }

    /// Begins a body that comes from `client`.
    pub(super) fn begin(&self, client: IpAddr) -> Room {
        Room {
            shares: self.shares.clone(),
            free_len: self.free_len,
            client,
            places: Vec::new(),
        }
    }
}

impl Room {
    /// Grows the room to `len` bytes. Returns whether there is so much.
    pub(super) fn make(&mut self, len: u64) -> bool {
        let pieces = len.saturating_sub(self.free_len).div_ceil(PIECE_LEN);
        while (self.places.len() as u64) < pieces {
            match self.shares.try_take(self.client) {
                Some(place) => self.places.push(place),
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
        let bodies = Bodies::new(4 * PIECE_LEN, 100);
        let [large, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let mut first = bodies.begin(large);

        assert!(first.make(3 * PIECE_LEN + 100));

        let mut second = bodies.begin(large);
        assert!(second.make(100) && !second.make(101));
        let mut third = bodies.begin(other);
        assert!(third.make(101) && !third.make(PIECE_LEN + 101));
        drop(first);
        assert!(second.make(101));
    }
}
