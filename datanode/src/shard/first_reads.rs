//! Which chunks were read from the device lately.
//!
//! A large read that comes for the first time goes past the page cache: that costs no copy, and what is read once, as by
//! a backup, drives nothing out that is read often. The next one of the same chunk fills the cache (the second touch
//! admits, as in 2Q: Johnson and Shasha, VLDB 1994).

use std::collections::{HashSet, VecDeque};

use distrifs_proto::types::ChunkId;

/// Chunks that are remembered; the oldest is forgotten.
const CHUNKS_MAX: usize = 4096;

/// The chunks whose first read was past the page cache.
#[derive(Debug, Default)]
pub(crate) struct FirstReads {
    known: HashSet<ChunkId>,
    oldest_first: VecDeque<ChunkId>,
}

impl FirstReads {
    /// Whether this is the first read of the chunk, as far as is remembered; from now on it was read.
    pub(crate) fn is_first(&mut self, chunk: ChunkId) -> bool {
        if !self.known.insert(chunk) {
            return false;
        }
        self.oldest_first.push_back(chunk);
        if self.oldest_first.len() > CHUNKS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_new_once_and_again_when_it_was_forgotten() {
        let mut reads = FirstReads::default();
        assert!(reads.is_first(ChunkId(1)) && reads.is_first(ChunkId(2)));
        assert!(!reads.is_first(ChunkId(1)) && !reads.is_first(ChunkId(2)));
        for other in 0..CHUNKS_MAX as u64 - 1 {
            assert!(reads.is_first(ChunkId(100 + other)));
        }
        assert!(!reads.is_first(ChunkId(2)) && reads.is_first(ChunkId(1)));
        assert_eq!((reads.known.len(), reads.oldest_first.len()), (CHUNKS_MAX, CHUNKS_MAX));
    }
}
