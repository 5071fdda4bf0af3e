//! Which node holds which replica, and which ones readers complained of.

use std::collections::{HashMap, VecDeque};

use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp};

use super::Replica;

/// Complaints remembered at once; the oldest is forgotten first.
const BLAMES_MAX: usize = 4096;
/// How long a complaint counts.
const BLAME_MS: u64 = 60_000;

/// A replica on a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    /// The node's index.
    pub(super) node: u32,
    /// As reported.
    pub(super) replica: Replica,
}

impl Held {
    /// Whether it is what the namespace expects: undamaged, not stale, the same bytes.
    pub(super) fn is_good(&self, generation: GenerationStamp, length: u64, crc: Crc32c) -> bool {
        let it = &self.replica;
        !it.corrupt && it.generation == generation && it.length == length && it.crc == crc
    }
}

/// All replicas by chunk.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    by_chunk: HashMap<ChunkId, Vec<Held>>,
    total: u64,
    blames: VecDeque<(ChunkId, u32, u64)>,
}

impl Replicas {
    /// The replicas of a chunk.
    pub(super) fn of(&self, chunk: ChunkId) -> &[Held] {
        self.by_chunk.get(&chunk).map_or(&[], Vec::as_slice)
    }

    /// Whether a node holds one.
    pub(super) fn holds(&self, chunk: ChunkId, node: u32) -> bool {
        self.of(chunk).iter().any(|held| held.node == node)
    }

    /// Keeps a replica of a node; the last word counts.
    pub(super) fn put(&mut self, node: u32, replica: Replica) {
        let list = self.by_chunk.entry(replica.chunk).or_default();
        if let Some(held) = list.iter_mut().find(|held| held.node == node) {
            held.replica = replica;
            return;
        }
        list.push(Held { node, replica });
        self.total += 1;
    }

    /// Forgets a replica of a node.
    pub(super) fn take(&mut self, node: u32, chunk: ChunkId) {
        let Some(list) = self.by_chunk.get_mut(&chunk) else { return };
        let before = list.len();
        list.retain(|held| held.node != node);
        self.total -= (before - list.len()) as u64;
        if list.is_empty() {
            self.by_chunk.remove(&chunk);
        }
    }

    /// Remembers a reader's complaint.
    pub(super) fn blame(&mut self, now_ms: u64, chunk: ChunkId, node: u32) {
        if self.blames.len() >= BLAMES_MAX {
            self.blames.pop_front();
        }
        self.blames.push_back((chunk, node, now_ms.saturating_add(BLAME_MS)));
    }

    /// Whether readers complained of a replica lately.
    pub(super) fn is_blamed(&self, now_ms: u64, chunk: ChunkId, node: u32) -> bool {
        self.blames.iter().any(|(of, at, until)| (*of, *at) == (chunk, node) && *until > now_ms)
    }

    /// Chunks and replicas.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.by_chunk.len() as u64, self.total)
    }
}
