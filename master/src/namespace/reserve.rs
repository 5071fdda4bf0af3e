//! Chunk ids that a leader may grant without logging each, and what becomes of those that it granted in vain.
//!
//! The mark moves up first, durably. Which of the ids below it were granted, the leader alone knows, as long as it
//! leads: the next one reserves others.

use distrifs_proto::types::ChunkId;

use super::command::{Answer, Reserved};
use super::{ChunkState, Namespace};

/// The first chunk id behind `count` reserved ones.
pub(super) fn past_reserved(next: ChunkId, count: u32) -> ChunkId {
    ChunkId(next.0.saturating_add(u64::from(count)))
}

impl Namespace {
    pub(super) fn reserve(&mut self, count: u32) -> Answer {
        let first = self.next_chunk;
        self.next_chunk = past_reserved(first, count);
        Answer::Reserved(Reserved { first, end: self.next_chunk, history: self.history })
    }

    /// Whether a chunk may have been granted and is nothing else yet. Also of one that was forgotten: that it is not
    /// one of those is the leader's to know.
    pub(super) fn is_spare(&self, chunk: ChunkId) -> bool {
        chunk != ChunkId(0) && chunk < self.next_chunk && self.chunk(chunk) == ChunkState::Unknown
    }

    pub(super) fn bury_spare(&mut self, at_ms: i64, chunks: &[ChunkId]) -> Answer {
        for chunk in chunks {
            if self.is_spare(*chunk) {
                self.bury(at_ms, *chunk, false);
            }
        }
        Answer::Done
    }
}
