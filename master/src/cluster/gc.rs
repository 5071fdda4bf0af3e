//! What may be deleted, and which tombstones may be forgotten.
//!
//! Deletions wait
//! - until the heartbeat timeout has passed since the start, so that nodes of the epoch before are known;
//! - for each node until its full report of this session is in;
//! - for good when a node has seen more than this master knows ([`super::Behind`]).
//!
//! An order is repeated until the node reports the replica gone. A tombstone is forgotten when no node is known
//! to hold a replica and every node that was seen since the start is there and has reported: one that is away
//! may have committed what it could not report. One of a chunk that was never completed waits a while longer,
//! because its writer may still be committing; and after a restart of the master all of them wait, because the
//! nodes of the time before are not known until they are back. Nobody waits for longer than
//! [`Ages::absent_ms`]: a node that was away during all of that keeps a replica that nobody knows: space lost,
//! not data.

use std::collections::HashMap;

use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

use super::{Cluster, SessionId};
use crate::namespace::Tombstone;

/// Messages with orders to one node in one step.
const MESSAGES_MAX: usize = 16;
/// Tombstones forgotten in one step.
const FORGET_MAX: usize = 8192;

/// The ages that tombstones must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// Before replicas are deleted.
    pub(crate) delay_ms: i64,
    /// Before a chunk that was never completed is forgotten.
    pub(crate) straggler_ms: i64,
    /// Before it is forgotten although nodes are away.
    pub(crate) absent_ms: i64,
}

/// What one step of gc does.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct GcStep {
    /// Replicas to delete, by session.
    pub(crate) orders: Vec<(SessionId, Vec<(ChunkId, GenerationStamp)>)>,
    /// Tombstones to forget.
    pub(crate) forget: Vec<ChunkId>,
}

impl GcStep {
    /// The orders cut into messages of at most [`ORDERS_MAX`].
    pub(crate) fn messages(&self) -> impl Iterator<Item = (SessionId, &[(ChunkId, GenerationStamp)])> + '_ {
        self.orders
            .iter()
            .flat_map(|(session, orders)| orders.chunks(ORDERS_MAX).map(move |message| (*session, message)))
    }
}

impl Cluster {
    /// Whether anything may be deleted at all.
    pub(crate) fn deletes(&self, now_ms: u64) -> bool {
        let waited = now_ms.saturating_sub(self.started_ms) >= self.timing.heartbeat_timeout_ms;
        waited && self.behind.is_none()
    }

    /// What to do about these tombstones. `wall_ms` is the clock their times are of.
    pub(crate) fn gc(
        &self,
        now_ms: u64,
        wall_ms: i64,
        ages: Ages,
        tombstones: impl Iterator<Item = (ChunkId, Tombstone)>,
    ) -> GcStep {
        let mut step = GcStep::default();
        if !self.deletes(now_ms) {
            return step;
        }
        let all_there = !self.returning(now_ms, u64::MAX)
            && self.nodes.iter().all(|node| node.session.is_some() && node.reported);
        let mut orders: HashMap<SessionId, Vec<(ChunkId, GenerationStamp)>> = HashMap::new();
        for (chunk, tombstone) in tombstones {
            let age = wall_ms.saturating_sub(tombstone.at_ms);
            if age < ages.delay_ms {
                continue;
            }
            let old_enough = tombstone.completed || age >= ages.straggler_ms;
            let nobody_missing = all_there || age >= ages.absent_ms;
            let mut held = self.replicas.of(chunk).peekable();
            if held.peek().is_none() && nobody_missing && old_enough && step.forget.len() < FORGET_MAX {
                step.forget.push(chunk);
            }
            for held in held.filter(|held| held.replica.generation <= tombstone.generation) {
                let Some(node) = self.nodes.get(held.node as usize) else { continue };
                let Some(session) = node.session.filter(|_| node.reported) else { continue };
                let list = orders.entry(session).or_default();
                if list.len() < ORDERS_MAX * MESSAGES_MAX {
                    list.push((chunk, tombstone.generation));
                }
            }
        }
        step.orders = orders.into_iter().collect();
        step.orders.sort_by_key(|(session, _)| *session);
        step
    }
}
