//! Connections that wait for their next request, a bounded number of them for a bounded time.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::status::Node;

/// Idle connections in all: those of forty small puts at a time, each of which has one to each of its three nodes. With
/// fewer one would open what another has just closed.
const IDLE_MAX: usize = 128;
/// Older ones are closed: a peer that restarted or hung meanwhile would be blamed for the wrong reason.
const IDLE_AGE_MAX: Duration = Duration::from_secs(5);

/// The idle connections of a client.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Since when each is idle, the longest first.
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pool {
    /// A connection to this node: an idle one that is still sound, or a new one; `anew` leaves the idle ones alone.
    pub(crate) async fn connect(
        &self,
        node: &Node,
        anew: bool,
        patience: Duration,
    ) -> io::Result<Connection> {
        while !anew && let Some(connection) = self.take(node) {
            if connection.is_quiet() {
                return Ok(connection);
            }
        }
        Connection::open(node, patience).await
    }

    fn take(&self, node: &Node) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut idle, Instant::now());
        let at = idle.iter().rposition(|(connection, _)| connection.node == node.id)?;
        Some(idle.remove(at).0)
    }

    /// Keeps a connection whose last request was answered in full.
    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        drop_old(&mut idle, now);
        if idle.len() == IDLE_MAX {
            idle.remove(0);
        }
        idle.push((connection, now));
    }
}

fn drop_old(idle: &mut Vec<(Connection, Instant)>, now: Instant) {
    idle.retain(|(_, since)| now.saturating_duration_since(*since) < IDLE_AGE_MAX);
}
