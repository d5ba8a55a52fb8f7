//! How many connections a mount keeps. Each takes one of the files that its process may have open, and
//! the rest is for the cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;

use super::protocol::Reply;

/// At most so many connections of root and the user who mounted together.
const MAX_OF_OWNERS: usize = 128;
/// At most so many of all other users together.
const MAX_OF_OTHERS: usize = 64;
/// At most so many of one of them, so that no user keeps the rest from asking.
const MAX_OF_ONE: usize = 16;

/// The user at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// Root, or the user who mounted.
    Owner,
    /// Another user.
    Other {
        /// This user.
        uid: u32,
    },
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<ConnectionCounts>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    of_owners: usize,
    of_others: HashMap<u32, usize>,
}

/// A connection that is counted, until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    peer: Peer,
}

/// ConnectionCounts a connection and returns its user. A user who may not ask now gets a refusal, and `None` is
/// returned.
pub(super) fn admit(
    stream: UnixStream,
    connections: &Arc<Connections>,
    allow_other: bool,
) -> Option<(UnixStream, Peer, ConnectionPermit)> {
    let uid = stream.peer_cred().ok()?.uid();
    let is_owner = uid == 0 || uid == rustix::process::geteuid().as_raw();
    let peer = if is_owner {
        Peer::Owner
    } else {
        Peer::Other { uid }
    };
    let refusal = if is_owner || allow_other {
        match connections.admit(peer) {
            Some(admitted) => return Some((stream, peer, admitted)),
            None => "too many requests are running: wait until one has ended",
        }
    } else {
        "only root and the user who mounted may ask: there is no allow_other"
    };
    let message = refusal.to_owned();
    if let Ok(line) = (Reply::Failed { message }).to_line() {
        // The socket has room for a first line. It fails if the client has gone.
        stream.try_write(line.as_bytes()).ok();
    }
    None
}

impl Connections {
    /// ConnectionCounts a connection of `peer`, if it may have another.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer) -> Option<ConnectionPermit> {
        let mut counts = self.counts();
        match peer {
            Peer::Owner if counts.of_owners < MAX_OF_OWNERS => counts.of_owners += 1,
            Peer::Other { uid } if counts.has_room_for(uid) => {
                *counts.of_others.entry(uid).or_default() += 1;
            }
            Peer::Owner | Peer::Other { .. } => return None,
        }
        drop(counts);
        Some(ConnectionPermit {
            connections: Arc::clone(self),
            peer,
        })
    }

    fn counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionCounts {
    fn has_room_for(&self, uid: u32) -> bool {
        let all: usize = self.of_others.values().sum();
        let own = self.of_others.get(&uid).copied().unwrap_or_default();
        all < MAX_OF_OTHERS && own < MAX_OF_ONE
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.connections.counts();
        match self.peer {
            Peer::Owner => counts.of_owners -= 1,
            Peer::Other { uid } => {
                if let Some(count) = counts.of_others.get_mut(&uid) {
                    *count -= 1;
                }
                counts.of_others.retain(|_, count| *count > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_a_share_and_the_owner_one_of_his_own() {
        let connections = Arc::new(Connections::default());
        let admitted = |peer, count| {
            let all: Vec<_> = (0..count).map_while(|_| connections.admit(peer)).collect();
            all
        };

        let greedy = admitted(Peer::Other { uid: 1 }, 1000);
        let others: Vec<_> = (2..1000)
            .flat_map(|uid| admitted(Peer::Other { uid }, 2))
            .collect();
        let owners = admitted(Peer::Owner, 1000);

        assert_eq!(greedy.len(), MAX_OF_ONE);
        assert_eq!(greedy.len() + others.len(), MAX_OF_OTHERS);
        assert_eq!(owners.len(), MAX_OF_OWNERS);
        drop((greedy, others, owners));
        assert_eq!(admitted(Peer::Other { uid: 1 }, 1000).len(), MAX_OF_ONE);
        assert!(connections.counts().of_others.is_empty());
    }
}
