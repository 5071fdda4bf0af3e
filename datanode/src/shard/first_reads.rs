//! Which parts of chunks were read from the device lately.
//!
//! A large read that comes for the first time goes past the page cache: that costs no copy, and what is read once, as by
//! a backup, drives nothing out that is read often. The next one of the same part fills the cache (the second touch
//! admits, as in 2Q: Johnson and Shasha, VLDB 1994).

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use distrifs_proto::types::ChunkId;

/// A chunk is remembered in regions of this size: a reader may ask for a long one in parts.
const REGION_BYTES: u64 = 16 << 20;
/// Regions that are remembered; the oldest is forgotten.
const REGIONS_MAX: usize = 16384;

type Region = (ChunkId, u64);

/// The regions whose first read was past the page cache.
#[derive(Debug, Default)]
pub(crate) struct FirstReads {
    known: HashSet<Region>,
    oldest_first: VecDeque<Region>,
}

impl FirstReads {
    /// Whether nothing of these bytes, of which there are some, was read before, as far as is remembered; from now on
    /// they were.
    pub(crate) fn is_first(&mut self, chunk: ChunkId, bytes: &Range<u64>) -> bool {
        let mut first = true;
        for region in bytes.start / REGION_BYTES..bytes.end.div_ceil(REGION_BYTES) {
            if !self.known.insert((chunk, region)) {
                first = false;
                continue;
            }
            self.oldest_first.push_back((chunk, region));
            if self.oldest_first.len() > REGIONS_MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Range<u64> = 0..REGION_BYTES;

    #[test]
    fn a_part_is_new_once_and_again_when_it_was_forgotten() {
        let mut reads = FirstReads::default();
        assert!(reads.is_first(ChunkId(1), &PART) && reads.is_first(ChunkId(2), &PART));
        assert!(!reads.is_first(ChunkId(1), &PART) && !reads.is_first(ChunkId(2), &PART));
        for other in 0..REGIONS_MAX as u64 - 1 {
            assert!(reads.is_first(ChunkId(100 + other), &PART));
        }
        assert!(!reads.is_first(ChunkId(2), &PART) && reads.is_first(ChunkId(1), &PART));
        assert_eq!((reads.known.len(), reads.oldest_first.len()), (REGIONS_MAX, REGIONS_MAX));
    }

    #[test]
    fn the_parts_of_a_chunk_are_told_apart() {
        let mut reads = FirstReads::default();
        let part = |n: u64| n * REGION_BYTES..(n + 1) * REGION_BYTES;
        assert!(reads.is_first(ChunkId(1), &part(1)) && reads.is_first(ChunkId(1), &part(0)));
        assert!(!reads.is_first(ChunkId(1), &(0..4 * REGION_BYTES)), "two of it are known");
        assert!(!reads.is_first(ChunkId(1), &part(3)), "that was the first time");
        assert!(!reads.is_first(ChunkId(1), &(part(1).start + 5..part(1).start + 9)));
        assert!(reads.is_first(ChunkId(1), &(5 * REGION_BYTES - 1..5 * REGION_BYTES + 1)));
    }
}
