//! Limits the connections to a control socket.
//!
//! Each connection takes one of the files that the process may have open. The cache needs the rest.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UnixStream;

use super::protocol::Reply;

/// At most this many connections of root and the user who mounted, together.
const MAX_OF_OWNERS: usize = 128;
/// At most this many connections of all other users together.
const MAX_OF_OTHERS: usize = 64;
/// At most this many connections of one other user, so that no user can take all of them.
const MAX_OF_ONE: usize = 16;

/// The user at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// Root, or the user who mounted.
    Owner,
    /// Another user.
    Other {
        /// The user's id.
        uid: u32,
    },
}

/// The open connections, counted by user.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<ConnectionCounts>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    of_owners: usize,
    of_others: HashMap<u32, usize>,
}

/// A permit for one connection. Dropping it uncounts the connection.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    peer: Peer,
}

/// Counts a connection, and returns it with its user and its permit.
///
/// Returns `None` if the user may not connect or has too many connections. Then the client has been
/// sent a refusal.
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
            None => "too many connections to this mount are open: retry in a moment",
        }
    } else {
        "only root and the user who mounted may ask this mount: it has no allow_other"
    };
    let message = refusal.to_owned();
    if let Ok(line) = (Reply::Failed { message }).to_line() {
        // Without waiting: this runs in the loop that accepts connections. The buffer of a new
        // socket has room for one line. A failure means that the client has gone.
        stream.try_write(line.as_bytes()).ok();
    }
    None
}

impl Connections {
    /// Counts a connection of `peer`. Returns `None` if `peer` has reached a limit.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer) -> Option<ConnectionPermit> {
        let mut counts = self.0.lock();
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
        let mut counts = self.connections.0.lock();
        match self.peer {
            Peer::Owner => counts.of_owners -= 1,
            Peer::Other { uid } => {
                if let Some(count) = counts.of_others.get_mut(&uid) {
                    *count -= 1;
                }
                // Otherwise the map would keep an entry for every uid that ever connected.
                counts.of_others.retain(|_, count| *count > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_limit_and_the_owner_a_separate_one() {
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
        assert!(connections.0.lock().of_others.is_empty());
    }
}
