//! How a chunk is: its good and damaged replicas on the nodes that are there.

use distrifs_proto::types::{ChunkId, NodeId};

use super::replicas::Held;
use super::{Cluster, NodeState};
use crate::namespace::Chunk;

/// Replicas of one chunk on nodes that are not dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// As the namespace has it.
    pub(crate) good: u32,
    /// Damaged, stale or of other bytes.
    pub(crate) damaged: u32,
}

/// What is wrong with a file or chunk, the worse the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    /// Fewer good replicas than are wanted.
    UnderReplicated,
    /// Damaged replicas only.
    Corrupt,
    /// None at all.
    Missing,
}

impl Health {
    /// What is wrong when so many replicas are wanted.
    pub(crate) fn problem(self, wanted: u32) -> Option<Problem> {
        match (self.good, self.damaged) {
            (0, 0) => Some(Problem::Missing),
            (0, _) => Some(Problem::Corrupt),
            (good, _) if good < wanted => Some(Problem::UnderReplicated),
            _ => None,
        }
    }
}

/// How one replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaState {
    /// As the namespace has it.
    Good,
    /// Its node found it damaged.
    Corrupt,
    /// Of an older generation.
    Stale,
    /// Of another length or checksum.
    Differs,
}

impl ReplicaState {
    pub(super) fn of(held: &Held, chunk: &Chunk) -> Self {
        let it = &held.replica;
        if it.corrupt {
            Self::Corrupt
        } else if it.generation < chunk.generation {
            Self::Stale
        } else if held.is_good(chunk.generation, u64::from(chunk.length), chunk.crc) {
            Self::Good
        } else {
            Self::Differs
        }
    }
}

/// One replica, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaView {
    /// Where it is.
    pub(crate) node: NodeId,
    /// HOST:PORT of that node's data plane.
    pub(crate) address: String,
    /// Whether that node is trusted with work.
    pub(crate) node_state: NodeState,
    /// How it is.
    pub(crate) state: ReplicaState,
    /// Readers complained of it lately.
    pub(crate) blamed: bool,
}

impl Cluster {
    /// How a chunk is now.
    pub(crate) fn health(&self, now_ms: u64, id: ChunkId, chunk: &Chunk) -> Health {
        let mut health = Health::default();
        for held in self.replicas.of(id) {
            let Some(node) = self.node(held.node) else { continue };
            if node.state(now_ms, self.listening) == NodeState::Dead {
                continue;
            }
            match ReplicaState::of(&held, chunk) {
                ReplicaState::Good => health.good += 1,
                _ => health.damaged += 1,
            }
        }
        health
    }

    /// How many good replicas of a chunk may be on nodes that are not there: those that are dead, and shortly after a
    /// start, when the nodes of the time before are on their way, all that are wanted and not known yet.
    pub(crate) fn away(&self, now_ms: u64, id: ChunkId, chunk: &Chunk, wanted: u32) -> u32 {
        let (mut known, mut dead) = (0, 0);
        for held in self.replicas.of(id) {
            let Some(node) = self.node(held.node) else { continue };
            known += 1;
            let gone = node.state(now_ms, self.listening) == NodeState::Dead;
            dead += u32::from(gone && ReplicaState::of(&held, chunk) == ReplicaState::Good);
        }
        if self.returning(now_ms, self.listening.timing.heartbeat_timeout_ms) {
            dead.max(wanted.saturating_sub(known))
        } else {
            dead
        }
    }

    /// All replicas of a chunk that are known, also on dead nodes, sorted by node.
    pub(crate) fn replica_views(&self, now_ms: u64, id: ChunkId, chunk: &Chunk) -> Vec<ReplicaView> {
        let view = |held: Held| {
            let node = self.node(held.node)?;
            Some(ReplicaView {
                node: node.id,
                address: node.address.clone(),
                node_state: node.state(now_ms, self.listening),
                state: ReplicaState::of(&held, chunk),
                blamed: self.replicas.is_blamed(now_ms, id, held.node),
            })
        };
        let mut views: Vec<ReplicaView> = self.replicas.of(id).filter_map(view).collect();
        views.sort_by_key(|view| view.node);
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_problem_is_named() {
        for (good, damaged, wanted, expected) in [
            (3, 0, 3, None),
            (4, 1, 3, None),
            (2, 0, 3, Some(Problem::UnderReplicated)),
            (1, 2, 3, Some(Problem::UnderReplicated)),
            (0, 1, 3, Some(Problem::Corrupt)),
            (0, 0, 1, Some(Problem::Missing)),
        ] {
            assert_eq!(Health { good, damaged }.problem(wanted), expected, "{good} good, {damaged} damaged");
        }
    }
}
