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
//! nodes of the time before are not known until they are back. No tombstone waits for longer than
//! [`Ages::absent_ms`]: a node that was away during all of that keeps an orphan: space lost, not data.
//!
//! A node that is away cannot hold a chunk whose id was handed out after it went: nothing is placed on it. So each has a
//! mark, the next chunk id at a moment after it went, and tombstones of ids from the highest mark on do not wait for
//! those that are away. Without the marks one dead node would let the tombstones of all that is replaced meanwhile gather
//! for a week.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

use super::{Cluster, SessionId};
use crate::hold;
use crate::namespace::Tombstone;

/// Nodes that get a mark in one step.
const MARKS_STEP: usize = 256;

/// Nodes without a session, and the chunks that they may hold.
#[derive(Debug, Default)]
pub(super) struct Away {
    unmarked: BTreeSet<u32>,
    marked: BTreeSet<(ChunkId, u32)>,
    /// Nodes of the time before the start hold no chunk from here on.
    start: Option<ChunkId>,
}

impl Away {
    /// A node has no session.
    pub(super) fn went(&mut self, node: u32, mark: Option<ChunkId>) {
        if mark.is_none() {
            self.unmarked.insert(node);
        }
    }

    /// A node has a session, or is forgotten.
    pub(super) fn is_back(&mut self, node: u32, mark: Option<ChunkId>) {
        self.unmarked.remove(&node);
        if let Some(mark) = mark {
            self.marked.remove(&(mark, node));
        }
    }
}

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

/// Delete orders of several steps, by the session of the datanode that gets them.
#[derive(Debug, Default)]
pub(crate) struct GcOrders {
    by_session: BTreeMap<SessionId, Vec<(ChunkId, GenerationStamp)>>,
    count: usize,
}

impl GcOrders {
    /// Adds what a step ordered.
    pub(crate) fn add(&mut self, orders: Vec<(SessionId, Vec<(ChunkId, GenerationStamp)>)>) {
        for (session, orders) in orders {
            self.count += orders.len();
            self.by_session.entry(session).or_default().extend(orders);
        }
    }

    /// All orders.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Sessions with orders.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.by_session.keys().copied().collect()
    }

    /// The next message to a session: at most [`ORDERS_MAX`] orders.
    pub(crate) fn message(&self, session: SessionId) -> Option<&[(ChunkId, GenerationStamp)]> {
        let orders = self.by_session.get(&session)?;
        Some(&orders[orders.len().saturating_sub(ORDERS_MAX)..])
    }

    /// The message is on its way.
    pub(crate) fn sent(&mut self, session: SessionId) {
        let Some(orders) = self.by_session.get_mut(&session) else { return };
        let left = orders.len().saturating_sub(ORDERS_MAX);
        self.count -= orders.len() - left;
        orders.truncate(left);
        if left == 0 {
            self.by_session.remove(&session);
        }
    }

    /// What a session would get is left to the next pass.
    pub(crate) fn drop_session(&mut self, session: SessionId) {
        self.count -= self.by_session.remove(&session).map_or(0, |orders| orders.len());
    }
}

impl Cluster {
    /// Whether anything may be deleted at all.
    pub(crate) fn deletes(&self, now_ms: u64) -> bool {
        let waited = now_ms.saturating_sub(self.started_ms) >= self.listening.timing.heartbeat_timeout_ms;
        waited && self.behind.is_none()
    }

    /// Marks some of the nodes that went since the last pass of gc, with the chunk id that would be handed out next; whether
    /// there are more of them.
    pub(crate) fn mark_away(&mut self, next: ChunkId) -> bool {
        self.away.start.get_or_insert(next);
        for _ in 0..MARKS_STEP {
            let Some(index) = self.away.unmarked.pop_first() else { return false };
            hold::count(1);
            if let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) {
                node.away_mark = Some(next);
                self.away.marked.insert((next, index));
            }
        }
        true
    }

    /// From which chunk id on no node that is away can hold a replica; `None`: any may be held.
    fn held_by_none_away(&self, now_ms: u64) -> Option<ChunkId> {
        if self.sums.unreported > 0 || !self.away.unmarked.is_empty() {
            return None;
        }
        let marked = self.away.marked.last().map_or(ChunkId(0), |(mark, _)| *mark);
        match self.returning(now_ms, u64::MAX) {
            true => self.away.start.map(|start| start.max(marked)),
            false => Some(marked),
        }
    }

    /// What to do about these tombstones: the locks are held meanwhile, so they are to be few. `wall_ms` is the clock their times are of.
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
        let floor = self.held_by_none_away(now_ms);
        let mut orders: HashMap<SessionId, Vec<(ChunkId, GenerationStamp)>> = HashMap::new();
        for (chunk, tombstone) in tombstones {
            hold::count(1);
            let age = wall_ms.saturating_sub(tombstone.at_ms);
            if age < ages.delay_ms {
                continue;
            }
            let old_enough = tombstone.completed || age >= ages.straggler_ms;
            let none_missing = floor.is_some_and(|floor| chunk >= floor) || age >= ages.absent_ms;
            let mut held = self.replicas.of(chunk).peekable();
            if held.peek().is_none() && none_missing && old_enough {
                step.forget.push(chunk);
            }
            for held in held.filter(|held| held.replica.generation <= tombstone.generation) {
                let Some(node) = self.node(held.node) else { continue };
                let Some(session) = node.session.filter(|_| node.reported) else { continue };
                orders.entry(session).or_default().push((chunk, tombstone.generation));
            }
        }
        step.orders = orders.into_iter().collect();
        step.orders.sort_by_key(|(session, _)| *session);
        step
    }
}
